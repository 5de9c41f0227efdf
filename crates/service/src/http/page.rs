//! What the pages of both sides share: the style, the script, the icon, the content security policy.

use super::Asset;

/// Allows only the page's own origin, and neither frames around the page nor forms.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `page.css`: colors, type, and the parts that every page has.
pub fn style() -> Asset {
    let plain = &include_bytes!("../../assets/page.css")[..];
    Asset::gzipped("page.css", "text/css; charset=utf-8", POLICY, plain)
}

/// `page.js`: calls of the API, elements, and how numbers and times are written. A module.
pub fn script() -> Asset {
    let plain = &include_bytes!("../../assets/page.js")[..];
    Asset::gzipped("page.js", "text/javascript; charset=utf-8", POLICY, plain)
}

/// `icon.svg`.
pub fn icon() -> Asset {
    Asset::gzipped("icon.svg", "image/svg+xml", POLICY, &include_bytes!("../../assets/icon.svg")[..])
}

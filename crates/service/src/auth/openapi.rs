//! Authentication in OpenAPI documents, from the table of routes.

use http::Method;
use http::header::WWW_AUTHENTICATE;
use millrace_contracts::Code;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, OpenApi, Ref};

use super::{Access, routes};
use crate::openapi::{maybe_header, response_name, shared_problem, text};

const BEARER: &str = "bearer";
const BASIC: &str = "basic";
const PIXEL: &str = "pixelKey";

/// The codes of a 403 that any route has.
const FORBIDDEN: &[Code] = &[Code::Forbidden, Code::CrossSite];
const UNAUTHENTICATED: &[Code] = &[Code::Unauthenticated];

/// Adds the security schemes, and the responses of requests that may not pass.
pub(crate) fn security_schemes(components: &mut Components) {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("mk_{id}_{secret} or JWT")
        .description(Some(
            "An API key, or a JSON Web Token of the issuer in the settings. With authentication off, no request needs one.",
        ))
        .build();
    let basic = HttpBuilder::new()
        .scheme(HttpAuthScheme::Basic)
        .description(Some("An API key as the password, with any user: for browsers."))
        .build();
    let pixel = ApiKeyValue::with_description("key", "A key of scope `pixel:write`, which is good for nothing else.");
    let schemes = [
        (BEARER, SecurityScheme::Http(bearer)),
        (BASIC, SecurityScheme::Http(basic)),
        (PIXEL, SecurityScheme::ApiKey(ApiKey::Query(pixel))),
    ];
    components.security_schemes.extend(schemes.map(|(name, scheme)| (name.to_owned(), scheme.into())));
    for codes in [UNAUTHENTICATED, FORBIDDEN] {
        let about = "The schemes, and what is wrong with the credential.";
        let response = shared_problem(codes).header(WWW_AUTHENTICATE.as_str(), maybe_header(about, text()));
        components.responses.insert(response_name(codes), response.into());
    }
}

/// Adds to every operation what the table of routes has for it.
pub(crate) fn secure(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            describe(operation, routes::access(&method, path), routes::legacy(path).is_some());
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::HEAD, &mut item.head),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// `legacy`: the operation describes its errors itself, as they are no problem documents.
fn describe(operation: &mut Operation, access: Access, legacy: bool) {
    let scopes: Vec<&str> = match access {
        Access::Open => {
            operation.security = Some(Vec::new());
            return;
        }
        Access::Credential => Vec::new(),
        Access::Scopes(scopes) => scopes.iter().map(|scope| scope.as_str()).collect(),
        Access::Pixel => vec!["events:write"],
    };
    // One requirement for each scope: any of them will do.
    let requirements = |scheme: &'static str| {
        let none = scopes.is_empty().then(|| SecurityRequirement::new(scheme, [""; 0]));
        let each = scopes.iter().map(move |scope| SecurityRequirement::new(scheme, [*scope]));
        none.into_iter().chain(each).collect::<Vec<_>>()
    };
    let mut security = [requirements(BEARER), requirements(BASIC)].concat();
    if access == Access::Pixel {
        security.push(SecurityRequirement::new(PIXEL, ["pixel:write"]));
    }
    operation.security = Some(security);
    for (status, codes) in [("401", UNAUTHENTICATED), ("403", FORBIDDEN)] {
        let response = Ref::from_response_name(response_name(codes));
        let responses = &mut operation.responses.responses;
        if !(legacy && responses.contains_key(status)) {
            responses.insert(status.into(), response.into());
        }
    }
}

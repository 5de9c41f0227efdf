//! Where a load goes: plain HTTP to a host and a port.

use std::str::FromStr;

/// The address of a service, `http://host:port` with nothing after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, for the Host header and for connecting.
    pub(crate) authority: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || "allowed: http://HOST:PORT, without a path".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| allowed())?;
        let authority = uri.authority().ok_or_else(allowed)?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        if !plain || authority.as_str().contains('@') {
            return Err(allowed());
        }
        let host = authority.host();
        Ok(Self { authority: format!("{host}:{}", authority.port_u16().unwrap_or(80)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_targets() {
        let authority = |text: &str| text.parse::<Target>().map(|target| target.authority);
        assert_eq!(authority("http://127.0.0.1:8081").as_deref(), Ok("127.0.0.1:8081"));
        assert_eq!(authority("http://[::1]:8081/").as_deref(), Ok("[::1]:8081"));
        assert_eq!(authority("http://command").as_deref(), Ok("command:80"));
        for bad in ["", "8081", "https://a:1", "http://a:1/x", "http://a:1/?q", "http://u@a:1", "a:1"] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }
}

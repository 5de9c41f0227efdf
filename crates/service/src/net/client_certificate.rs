//! The certificate that a client has shown in its handshake.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Longest name: with the prefix of its principal it is as long as any principal may be.
const MAX_NAME: usize = 251;
/// Most names of a certificate that count.
const MAX_NAMES: usize = 100;

/// Who a client is by its certificate, which an authority of the settings has signed and which was valid at the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    names: Vec<Box<str>>,
    not_after_ms: i64,
}

impl ClientCertificate {
    /// Reads a certificate in DER. One that cannot be read has no names and is not valid any more.
    pub(super) fn parse(der: &[u8]) -> Self {
        let Ok((_, certificate)) = parse_x509_certificate(der) else { return Self::default() };
        let names = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension
                .value
                .general_names
                .iter()
                .filter_map(name_of)
                .take(MAX_NAMES)
                .map(String::into_boxed_str)
                .collect(),
            Ok(None) | Err(_) => Vec::new(),
        };
        Self { names, not_after_ms: certificate.validity().not_after.timestamp().saturating_mul(1_000) }
    }

    /// One with these names, for tests.
    #[cfg(test)]
    pub(crate) fn of(names: &[&str], not_after_ms: i64) -> Self {
        Self { names: names.iter().map(|name| (*name).into()).collect(), not_after_ms }
    }

    /// Its subject alternative names, in its order: DNS names in lower case, addresses, URIs and addresses of mail. No name of
    /// one kind looks like one of another.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// From when on it is not valid, in ms since the epoch.
    pub fn not_after_ms(&self) -> i64 {
        self.not_after_ms
    }
}

/// The kinds of names, which their text tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Address,
    Uri,
    Mail,
    Dns,
}

fn kind_of(text: &str) -> Option<Kind> {
    let dns = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !(1..=MAX_NAME).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        None
    } else if text.parse::<IpAddr>().is_ok() {
        Some(Kind::Address)
    } else if text.contains(':') {
        Some(Kind::Uri)
    } else if text.contains('@') {
        Some(Kind::Mail)
    } else {
        // A last label of digits is part of an address, if an odd one.
        let is_number = text.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        (text.bytes().all(dns) && !is_number).then_some(Kind::Dns)
    }
}

/// The text of a name; none of one that looks like a name of another kind.
fn name_of(name: &GeneralName<'_>) -> Option<String> {
    let (text, kind) = match name {
        GeneralName::DNSName(name) => (name.to_ascii_lowercase(), Kind::Dns),
        GeneralName::RFC822Name(name) => ((*name).to_owned(), Kind::Mail),
        GeneralName::URI(name) => ((*name).to_owned(), Kind::Uri),
        GeneralName::IPAddress(bytes) => (address_of(bytes)?.to_string(), Kind::Address),
        _ => return None,
    };
    (kind_of(&text) == Some(kind)).then_some(text)
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// Whether a certificate could have a name, written like that.
pub(crate) fn is_certificate_name(text: &str) -> bool {
    match kind_of(text) {
        Some(Kind::Dns) => !text.bytes().any(|byte| byte.is_ascii_uppercase()),
        Some(Kind::Address) => text.parse::<IpAddr>().is_ok_and(|address| address.to_string() == text),
        Some(Kind::Uri | Kind::Mail) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn names(names: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_after = date_time_ymd(2_030, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = ClientCertificate::parse(certificate.der());
        assert_eq!(read.not_after_ms(), 1_893_456_000_000);
        read.names().map(str::to_owned).collect()
    }

    #[test]
    fn names_of_all_kinds_are_read_and_none_is_taken_for_another() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        let mail = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
        let address = |text: &str| SanType::IpAddress(text.parse().unwrap());
        let all = [
            dns("Sensor7.Example"),
            uri("spiffe://a/b"),
            mail("a@b.example"),
            address("192.0.2.7"),
            address("2001:db8::7"),
        ];
        let read = ["sensor7.example", "spiffe://a/b", "a@b.example", "192.0.2.7", "2001:db8::7"];
        assert_eq!(names(all.into()), read);
        assert!(read.into_iter().all(is_certificate_name));
        let long = "a".repeat(MAX_NAME + 1);
        let disguised =
            [dns("192.0.2.7"), dns("a@b"), dns("a:b"), dns("a b"), uri("fe80::1"), uri("a"), mail("a"), dns(&long)];
        assert_eq!(names(disguised.into()), [""; 0]);
        assert_eq!(names(Vec::new()), [""; 0]);
        for bad in ["", "Sensor7", "a b", "a/b", "ä", "2001:DB8::7", "192.0.2.007", &long] {
            assert!(!is_certificate_name(bad), "{bad}");
        }
        assert_eq!(ClientCertificate::parse(b"nothing"), ClientCertificate::default());
    }
}

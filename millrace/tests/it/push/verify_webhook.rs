//! `millrace verify-webhook`.

use std::io::Write as _;
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::examples::{Vector, vectors};
use crate::run::{stderr, stdout, tool};

fn verify(vector: &Vector, more: &[&str]) -> Output {
    let signature = vector.signature.as_deref().unwrap_or_default();
    let mut command = tool(&["verify-webhook", "--id", &vector.id, "--timestamp", &vector.timestamp]);
    command.args(["--signature", signature]).args(more).env("WEBHOOK_SECRET", &vector.key);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let body = STANDARD.decode(&vector.body_base64).unwrap();
    // It may end without reading it.
    let _ = running.stdin.take().unwrap().write_all(&body);
    running.wait_with_output().unwrap()
}

#[test]
fn verify_webhook_decides_as_the_endpoints_do() {
    for vector in vectors() {
        let verified = verify(&vector, &["--tolerance", "36500d"]);
        let code = i32::from(!vector.genuine);
        assert_eq!(verified.status.code(), Some(code), "{}: {}", vector.name, stdout(&verified));
        let begins = if vector.genuine { "genuine: " } else { "refused: " };
        assert!(stdout(&verified).starts_with(begins), "{}: {}", vector.name, stdout(&verified));
    }
    let old = verify(&vectors()[0], &[]);
    assert_eq!(old.status.code(), Some(1));
    assert!(stdout(&old).contains("further than 5m") && !stdout(&old).contains("matches"), "{}", stdout(&old));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n", vectors()[1].key)).unwrap();
    let path = file.path().display().to_string();
    let of_file = verify(
        &Vector { key: "whsec_!".into(), ..vectors().remove(1) },
        &["--secret-file", &path, "--tolerance", "36500d"],
    );
    assert_eq!(of_file.status.code(), Some(0), "{}", stderr(&of_file));
    let no_key = verify(&Vector { key: "whsec_!".into(), ..vectors().remove(0) }, &[]);
    assert_eq!(no_key.status.code(), Some(2));
    assert!(stderr(&no_key).contains("the secret must be whsec_"), "{}", stderr(&no_key));
}

//! The API key that a tool shows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use millrace_service::auth::ApiKey;
use millrace_service::net::TlsClient;

use super::Access;
use super::Server;

/// The variable with the key itself.
const VARIABLE: &str = "MILLRACE_KEY";
/// More than a key or the secret of a webhook has, with a line feed.
const MAX_LINE: u64 = 256;

/// Where the key comes from. It is never an argument: those of a process are visible to everybody on the machine.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KeySource {
    /// File with the API key, - for a line of standard input; default: the key in the environment, if there is one
    #[arg(long, value_name = "FILE", env = "MILLRACE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// File with the authorities that https:// and tls:// trust, in PEM; default: those of the system
    #[arg(long, value_name = "FILE", env = "MILLRACE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Send the key unencrypted to other machines too, where everybody on the way can read it
    #[arg(long, env = "MILLRACE_ALLOW_CLEAR_KEY")]
    allow_clear_key: bool,
}

impl KeySource {
    /// The key, and whom to trust with it.
    pub(crate) fn access(&self) -> anyhow::Result<Access> {
        let tls = self.ca_file.as_deref().map(|file| TlsClient::new(Some(file))).transpose()?;
        Ok(Access { key: self.key()?.map(|key| key.bearer()), tls, allow_clear_key: self.allow_clear_key })
    }

    /// What a client of TCP intake needs: the key, and the authorities if the server encrypts.
    ///
    /// # Errors
    /// A file cannot be used, or the key would be readable on its way.
    pub(crate) fn for_intake(&self, server: &Server) -> anyhow::Result<(Option<ApiKey>, Option<TlsClient>)> {
        let key = self.key()?;
        if key.is_some() && !self.allow_clear_key {
            server.check_key()?;
        }
        let tls = server.tls.then(|| TlsClient::for_intake(self.ca_file.as_deref())).transpose()?;
        Ok((key, tls))
    }

    /// The key; `None` without one.
    pub(crate) fn key(&self) -> anyhow::Result<Option<ApiKey>> {
        let (text, from) = match (&self.key_file, std::env::var(VARIABLE)) {
            (Some(file), _) => (first_line(file)?, file.display().to_string()),
            (None, Ok(text)) => (text, VARIABLE.to_owned()),
            (None, Err(_)) => return Ok(None),
        };
        let Some(key) = ApiKey::parse(text.trim()) else { bail!("{from}: the content is not a key of Millrace") };
        Ok(Some(key))
    }
}

/// The first line of a file with a secret, - for standard input. Of a longer one its beginning, which is no secret then.
pub(crate) fn first_line(file: &Path) -> anyhow::Result<String> {
    let mut line = String::new();
    let read = |input: &mut dyn Read, line: &mut String| BufReader::new(input.take(MAX_LINE)).read_line(line);
    let outcome = if file == Path::new("-") {
        read(&mut io::stdin(), &mut line)
    } else {
        File::open(file).and_then(|mut file| read(&mut file, &mut line))
    };
    outcome.with_context(|| file.display().to_string())?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_first_line_of_a_file_and_repeats_nothing_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let source = KeySource { key_file: Some(file.clone()), ..KeySource::default() };
        let key = ApiKey::generate().unwrap();
        std::fs::write(&file, format!("{}\nmore\n", key.expose())).unwrap();
        assert_eq!(source.key().unwrap(), Some(key));
        std::fs::write(&file, "canary\n").unwrap();
        let problem = format!("{:#}", source.key().unwrap_err());
        assert!(problem.contains("not a key") && !problem.contains("canary"), "{problem}");
    }

    #[test]
    fn reads_no_more_than_a_secret_has() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x".repeat(1 << 20)).unwrap();
        assert_eq!(first_line(file.path()).unwrap().len() as u64, MAX_LINE);
    }
}

//! Directories and programs: the repository, the target folder, scratch folders, Kafka's jars, Java.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::wait::unique;

/// The root of the repository.
///
/// # Panics
/// Never: this crate is two folders below it.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/testkit is two folders below the root")
}

/// Cargo's target folder: that of the running test binary (`<target>/<profile>/deps`), else `target` at the root.
pub fn target_dir() -> PathBuf {
    profile_dir()
        .and_then(|profile| profile.parent().map(Path::to_path_buf))
        .unwrap_or_else(|| repository().join("target"))
}

/// `<target>/<profile>` of the running test binary.
pub(crate) fn profile_dir() -> Option<PathBuf> {
    let binary = env::current_exe().ok()?;
    let folder = binary.parent()?;
    if folder.ends_with("deps") { folder.parent().map(Path::to_path_buf) } else { Some(folder.to_path_buf()) }
}

/// Creates an empty folder for one test below `MILLRACE_TEST_SCRATCH`, else `target/test-servers`. It stays for the
/// analysis of a failure; `make test` deletes it after a successful run.
///
/// # Panics
/// If it cannot be created.
pub fn scratch_dir(what: &str) -> PathBuf {
    let scratch = env::var_os("MILLRACE_TEST_SCRATCH").map_or_else(|| target_dir().join("test-servers"), PathBuf::from);
    let folder = scratch.join(unique(what));
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    folder
}

/// The folder with Kafka's jars in `libs`; downloads them through Maven if it is empty.
pub(crate) fn kafka_home() -> Result<PathBuf, String> {
    static HOME: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    HOME.get_or_init(|| {
        let home =
            env::var_os("MILLRACE_KAFKA_HOME").map_or_else(|| repository().join("target/stack/kafka"), PathBuf::from);
        let output = Command::new("bash")
            .arg(repository().join("deploy/native/fetch"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("bash: {error}"))?;
        if output.status.success() { Ok(home) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
    })
    .clone()
}

/// Java 17 or newer. Runs each candidate: some systems ship a `java` that only names a download page.
pub(crate) fn java() -> Result<OsString, String> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java").into_os_string());
    let brewed = ["/opt/homebrew/opt/openjdk/bin/java", "/usr/local/opt/openjdk/bin/java"].map(OsString::from);
    home.into_iter()
        .chain([OsString::from("java")])
        .chain(brewed)
        .find(|java| {
            Command::new(java).arg("-version").output().is_ok_and(|output| {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                major_version(&text).is_some_and(|major| major >= 17)
            })
        })
        .ok_or_else(|| "Java 17 or newer was not found".to_owned())
}

fn major_version(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version \"")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A program on the path, or in the folders where Debian and Homebrew install PostgreSQL's.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut versioned: Vec<PathBuf> = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("bin"))
        .collect();
    versioned.sort();
    env::split_paths(&path)
        .chain(versioned.into_iter().rev())
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version_from_javas_output() {
        assert_eq!(major_version("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(major_version("java version \"21\""), Some(21));
        assert_eq!(major_version("java version \"1.8.0_402\""), Some(1));
        assert_eq!(major_version("No Java runtime present, requesting install."), None);
    }

    #[test]
    fn finds_the_root_of_the_repository() {
        assert!(repository().join("deploy/native/kafka.properties").is_file());
    }
}

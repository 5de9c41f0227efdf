//! `check-config`, and the response of every subcommand to invalid settings.

use crate::run::{stderr, stdout, tool};

#[test]
fn printed_defaults_are_a_valid_file() {
    let printed = tool(&["check-config", "--print-default"]).output().unwrap();
    assert_eq!(stdout(&printed), include_str!("../../default.toml"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millrace.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let checked = tool(&["check-config", "--config", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    assert!(stdout(&checked).starts_with("the settings are valid: engine embedded"), "{}", stdout(&checked));
}

#[test]
fn reports_all_problems_at_once_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millrace.toml");
    std::fs::write(&file, "[query]\nlisen = \"127.0.0.1:1\"\nrefresh_interval = 5\n").unwrap();
    for subcommand in ["check-config", "up", "topics", "load"] {
        let mut wrong = tool(&[subcommand, "--set", "shutdown_grace=0s"]);
        let wrong = wrong.env("MILLRACE_CONFIG", &file).env("MILLRACE_COMMAND__LISTEN", "nowhere");
        let output = wrong.current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{subcommand}");
        let text = stderr(&output);
        let path = file.display();
        for start in [
            format!("millrace: query.lisen ({path}:2): "),
            format!("millrace: query.refresh_interval ({path}:3): "),
            "millrace: command.listen (environment MILLRACE_COMMAND__LISTEN): ".to_owned(),
            "millrace: shutdown_grace (flag): ".to_owned(),
        ] {
            assert!(text.lines().any(|line| line.starts_with(&start)), "{start} in {text}");
        }
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}

#[test]
fn completions_and_manual_pages_need_no_settings() {
    let mut script = tool(&["completions", "bash"]);
    let output = script.env("MILLRACE_SHUTDOWN_GRACE", "nonsense").output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("check-config"));
    let folder = tempfile::tempdir().unwrap();
    let output = tool(&["man", "--to", folder.path().to_str().unwrap()]).output().unwrap();
    assert!(output.status.success() && folder.path().join("millrace-load.1").is_file(), "{}", stderr(&output));
}

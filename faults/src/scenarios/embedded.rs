//! The rows of the embedded engine: fail points, a full disk, a failed sync, damaged files, and the order of sync and response.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use millrace_testkit::{scratch_dir, target_dir};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::scenario::Scenario;
use super::topics;
use super::{intake, pressure, push};
use crate::cluster::{Cluster, seconds};
use crate::fault::{EMBEDDED_POINTS, Fault};
use crate::intake::journal_writes;
use crate::random::USERS;
use crate::report::Part;
use crate::synced;
use crate::system::{Engine, Setup};

/// Free space above the reserve before the disk is full, and the size of the file that fills it.
const LEFT_MIB: u64 = 3 << 10;
const BALLAST_MIB: u64 = 6 << 10;

pub(super) const ROWS: &[Scenario] = &[
    Scenario {
        row: "points",
        what: "kill -9 at every fail point of the embedded engine, under load.",
        fail_points: true,
        own: None,
        play: points,
    },
    Scenario {
        row: "34",
        what: "40 events with ids, each sent 100 times, concurrently: each counts once.",
        fail_points: false,
        own: None,
        play: pressure::duplicates,
    },
    pressure::HOSTILE,
    topics::TOPICS,
    intake::TCP,
    push::EMBEDDED,
    Scenario {
        row: "sync",
        what: "a sync that fails: the process acknowledges nothing after it, exits and restarts.",
        fail_points: true,
        own: None,
        play: failed_sync,
    },
    Scenario {
        row: "disk",
        what: "a full disk: 503 `disk-full`, reads continue, and writes too once there is space.",
        fail_points: false,
        own: Some(near_the_reserve),
        play: full_disk,
    },
    Scenario {
        row: "damage",
        what: "damaged files: the engine refuses to start and names the file, or every count is right.",
        fail_points: false,
        own: None,
        play: damage,
    },
    Scenario {
        row: "power",
        what: "the system calls of single writes: a completed fdatasync between each request and its response, and before each move of the journal's position.",
        fail_points: true,
        own: None,
        play: power,
    },
];

fn points(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_500);
    for (number, point) in EMBEDDED_POINTS.iter().enumerate() {
        let fault = Fault::Crash("up-1".to_owned(), point, number as u64);
        let before = fault.effects(&mut cluster.system);
        fault.inject(&mut cluster.system)?;
        let died = cluster.wait_for(seconds(12), |cluster| fault.effects(&mut cluster.system) > before);
        part.sometimes(&format!("died at {point}"), u64::from(died.is_some()));
        fault.repair(&mut cluster.system)?;
        cluster.continues(part, point, seconds(10));
    }
    Ok(())
}

fn failed_sync(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    let fault = Fault::FailedSync("up-1".to_owned());
    for _ in 0..3 {
        let before = fault.effects(&mut cluster.system);
        fault.inject(&mut cluster.system)?;
        let ended = cluster.wait_for(seconds(15), |cluster| {
            fault.effects(&mut cluster.system) > before
                || cluster.system.node("up-1").log().contains("injected at embedded::sync")
        });
        part.sometimes("a sync failed", u64::from(ended.is_some()));
        cluster.pass(seconds(3));
        fault.repair(&mut cluster.system)?;
        cluster.continues(part, "after a failed sync", seconds(10));
    }
    Ok(())
}

fn free_mib() -> u64 {
    statvfs(target_dir()).map_or(0, |stat| (stat.f_bavail * stat.f_frsize) >> 20)
}

fn near_the_reserve() -> (Setup, u64, u64) {
    let reserve = free_mib().saturating_sub(LEFT_MIB).max(1);
    (Setup::new(Engine::Embedded).set("embedded.min_free_disk", &format!("{reserve}MiB")), USERS, 0)
}

fn full_disk(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    if free_mib() < BALLAST_MIB + 1_024 {
        part.unmet.push(format!(
            "{} MiB are free, which is too little for a reserve and the file that fills the disk",
            free_mib()
        ));
        return Ok(());
    }
    cluster.send(500);
    cluster.pass(seconds(2));
    let path = scratch_dir("ballast").join("ballast");
    let file = File::create(&path).map_err(|error| error.to_string())?;
    let filled = fallocate(&file, FallocateFlags::empty(), 0, BALLAST_MIB << 20).map_err(|error| error.to_string());
    let refused = |cluster: &Cluster| cluster.run.oracle.answered("disk-full");
    let full = cluster.wait_for(seconds(20), |cluster| refused(cluster) > 0);
    let read = cluster.visible();
    drop(file);
    fs::remove_file(&path).map_err(|error| error.to_string())?;
    filled?;
    part.sometimes("503 disk-full", refused(cluster));
    part.must(full.is_some() && read > 0, format!("reads continue while it is full ({read} events shown)"));
    cluster.continues(part, "after a full disk", seconds(20));
    Ok(())
}

fn damage(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(2_000);
    cluster.pass(seconds(5));
    cluster.finish_load();
    cluster.pass(seconds(2));
    let status = cluster.system.node("up-1").terminate(seconds(15));
    part.must(status.is_some_and(|status| status.success()), "a clean stop before the damage");
    let mut files = Vec::new();
    files_below(&cluster.system.data(), &mut files);
    files.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let mut refusals = 0;
    for (_, path) in files.iter().take(4) {
        let (at, before) = flip(path)?;
        let name = path.strip_prefix(cluster.system.data()).unwrap_or(path).display().to_string();
        let node = cluster.system.node("up-1");
        node.start();
        node.leave_down();
        let admin = node.admin;
        let settled = cluster.wait_for(seconds(30), |cluster| {
            let ready = millrace_testkit::http_get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
            ready || !cluster.system.node("up-1").is_running()
        });
        let words = cluster.system.node("up-1").log_tail();
        let ended = cluster.system.node("up-1").ended();
        if let Some(status) = ended {
            refusals += 1;
            let named = words.contains(&name);
            part.must(
                !status.success() && named,
                format!("{name} damaged at {at}: {status}, and the log names the file"),
            );
            let last = words.lines().last().unwrap_or_default();
            part.fact(last.chars().take(300).collect::<String>());
        } else {
            part.must(settled.is_some(), format!("{name} damaged at {at}: it starts or refuses to start"));
            cluster.system.tend();
            let outcome = crate::check::settle(&mut cluster.system, &cluster.run, seconds(20));
            let whole = outcome.differences.is_empty();
            part.must(whole, format!("{name} damaged at {at}: it starts, and every count is right"));
        }
        cluster.system.node("up-1").kill();
        write_at(path, at, &before)?;
    }
    part.sometimes("refused to start", refusals);
    Ok(())
}

fn files_below(folder: &Path, files: &mut Vec<(u64, PathBuf)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(data) if data.is_dir() => files_below(&entry.path(), files),
            Ok(data) if data.len() > 512 => files.push((data.len(), entry.path())),
            _ => {}
        }
    }
}

/// Inverts 16 bytes in the middle of a file's written part. Returns their position and the original bytes.
fn flip(path: &Path) -> Result<(u64, Vec<u8>), String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
    let at = written / 2;
    let before = bytes[at..(at + 16).min(bytes.len())].to_vec();
    let flipped: Vec<u8> = before.iter().map(|byte| !byte).collect();
    write_at(path, at as u64, &flipped)?;
    Ok((at as u64, before))
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) -> Result<(), String> {
    let file = File::options().write(true).open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    file.write_all_at(bytes, at).map_err(|error| format!("{}: {error}", path.display()))
}

fn power(_: &mut Cluster, part: &mut Part) -> Result<(), String> {
    if Command::new("strace").arg("-V").output().is_err() {
        part.unmet.push("strace is not installed".to_owned());
        return Ok(());
    }
    let (answers, after_sync) = synced::answers("")?;
    part.sometimes("responses traced", answers);
    part.must(answers == after_sync, format!("{after_sync} of {answers} responses came after a completed sync"));
    let (writes, ordered) = journal_writes("")?;
    part.sometimes("writes to the journal traced", writes);
    part.must(writes == ordered, format!("{ordered} of {writes} writes to the journal came after a completed sync"));
    Ok(())
}

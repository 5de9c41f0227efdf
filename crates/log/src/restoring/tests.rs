//! Restores that fail for some of their partitions.

use millrace_contracts::{Position, Topic};

use super::*;
use crate::{Batch, Limits, StageError, Step};

const PATIENCE: Duration = Duration::from_secs(30);

struct Stateless;

impl Stage for Stateless {
    type State = ();
    type Undo = ();

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        Topic::STATE
    }

    fn outputs(&self) -> &'static [Topic] {
        &[]
    }

    fn new_state(&self, _: u32) {}

    fn load(&self, (): &mut (), _: &[u8], _: &[u8]) -> Result<(), StageError> {
        Ok(())
    }

    fn apply(&self, (): &mut (), _: &Batch, _: &mut Step) -> Result<(), StageError> {
        Ok(())
    }

    fn undo(&self, (): &mut (), (): ()) {}
}

fn restores(restoring: &mut RestoreQueue<Stateless>, expected: &[u32]) {
    let mut restored: Vec<u32> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while restored != expected {
        assert!(Instant::now() < deadline, "{restored:?}, not {expected:?}");
        restored.extend(restoring.advance().unwrap().unwrap_or_default().into_iter().map(|one| one.partition));
        restored.sort_unstable();
        std::thread::yield_now();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

fn restored(partition: u32) -> RestoredPartition<Stateless> {
    RestoredPartition { partition, state: (), position: Position::default() }
}

fn options(status: watch::Sender<Status>) -> RunOptions {
    let (role, instance) = ("restoring".into(), "a".into());
    RunOptions { role, instance, workers: 1, step: Limits::default(), status }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_result_is_for_the_partitions_that_are_retained() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let work: RestoreWork<Stateless> = {
        let seen = seen.clone();
        Arc::new(move |task| {
            task.end(Ok(task.partitions.iter().copied().map(restored).collect()));
            while !task.canceled.is_cancelled() {
                *seen.lock().unwrap() = task.retained();
                std::thread::yield_now();
            }
        })
    };
    let options = options(watch::channel(Status::Starting).0);
    let mut restoring = RestoreQueue::new(&options, &CancellationToken::new(), work);
    restoring.begin(vec![0, 1]).unwrap();
    restores(&mut restoring, &[0, 1]);
    restoring.revoke(&[0]).unwrap();
    until("it goes on for the other", || *seen.lock().unwrap() == [1]);
    restoring.revoke(&[1]).unwrap();
    until("it ends", || restoring.advance().unwrap().is_some());
    assert!(!restoring.is_running());
}

#[test]
fn an_unknown_lag_does_not_replace_a_known_one() {
    let options = options(watch::channel(Status::Starting).0);
    let work: RestoreWork<Stateless> = Arc::new(|_| {});
    let mut restoring = RestoreQueue::new(&options, &CancellationToken::new(), work);
    let mut lags_after = |partition, lag| {
        restoring.fail(partition, LogError::unavailable("flawed"), lag);
        restoring.lags().collect::<Vec<_>>()
    };
    let known = Lag { stable: 5, open: 0 };
    assert!(lags_after(1, None).is_empty());
    assert_eq!(lags_after(2, Some(known)), [(2, known)]);
    assert_eq!(lags_after(2, None), [(2, known)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_fail_together_leave_the_others_together() {
    let (tried, flawed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(vec![1, 2])));
    let work: RestoreWork<Stateless> = {
        let (tried, flawed) = (tried.clone(), flawed.clone());
        Arc::new(move |task| {
            tried.lock().unwrap().push(task.partitions.to_vec());
            let flawed: Vec<u32> = flawed.lock().unwrap().clone();
            let (bad, good): (Vec<u32>, Vec<u32>) =
                task.partitions.iter().copied().partition(|partition| flawed.contains(partition));
            task.end(if bad.is_empty() {
                Ok(good.into_iter().map(restored).collect())
            } else {
                Err(RestoreError::partitions(bad.into_iter().map(|one| (one, LogError::unavailable("flawed")))))
            });
        })
    };
    let (status, seen) = watch::channel(Status::Starting);
    let options = options(status);
    let mut restoring = RestoreQueue::new(&options, &CancellationToken::new(), work);
    restoring.begin(vec![0, 1, 2, 3]).unwrap();
    restores(&mut restoring, &[0, 3]);
    restoring.report([0, 3].into_iter());
    let degraded = |status: &Status| {
        matches!(status, Status::Degraded { partitions, failed }
            if *partitions == [0, 3] && failed.keys().copied().eq([1, 2]))
    };
    assert!(degraded(&seen.borrow()), "{:?}", seen.borrow());
    assert!(tried.lock().unwrap().contains(&vec![0, 3]));
    flawed.lock().unwrap().clear();
    restores(&mut restoring, &[1, 2]);
    restoring.report(0..4);
    assert_eq!(*seen.borrow(), Status::Running { partitions: vec![0, 1, 2, 3] });
}

//! Endpoints that are slow have a quarter of the requests in flight, and no other waits for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use millrace_testkit::wait_until;
use serde_json::{Value, json};

use super::receiver::Receiver;
use super::{ALLOWED, settled, subscribe};
use crate::run::{Up, WITHIN};
use crate::topics::Api;

const MAX_IN_FLIGHT: usize = 16;
const SLOW: [&str; 2] = ["slow-1", "slow-2"];
const OTHERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Longer than the second after which an endpoint counts as slow.
const LONG: Duration = Duration::from_millis(1_200);

/// The requests at slow endpoints.
#[derive(Debug, Default)]
struct Requests {
    so_far: usize,
    in_flight: usize,
    most: usize,
    /// None is answered while this is set.
    held: bool,
    /// They are answered at once.
    quick: bool,
}

/// What the slow endpoints share.
#[derive(Debug, Default)]
struct Endpoints {
    requests: Mutex<Requests>,
    changed: Condvar,
}

impl Endpoints {
    /// Returns when a request may be answered.
    fn take(&self) {
        let quick = {
            let mut requests = self.requests.lock().unwrap();
            requests.so_far += 1;
            requests.in_flight += 1;
            requests.most = requests.most.max(requests.in_flight);
            requests.quick
        };
        if !quick {
            thread::sleep(LONG);
        }
        let requests = self.requests.lock().unwrap();
        let mut requests = self.changed.wait_while(requests, |requests| requests.held).unwrap();
        requests.in_flight -= 1;
    }

    fn change(&self, change: impl FnOnce(&mut Requests)) {
        change(&mut self.requests.lock().unwrap());
        self.changed.notify_all();
    }

    fn read<T>(&self, read: impl FnOnce(&Requests) -> T) -> T {
        read(&self.requests.lock().unwrap())
    }
}

#[test]
fn slow_endpoints_share_a_quarter_and_no_other_waits_for_them() {
    let up = Up::with(&[ALLOWED, ("delivery.max_in_flight", &MAX_IN_FLIGHT.to_string())]);
    let (api, slow, other) = (Api(up.command), Receiver::start(), Receiver::start());
    let endpoints = Arc::new(Endpoints::default());
    let own = endpoints.clone();
    slow.answers(move |_| {
        own.take();
        Some((204, ""))
    });
    api.expect("PUT", "/v1/topics/t", &Value::Null, 201);
    for name in SLOW {
        // What is held must not fail.
        subscribe(api, "t", name, &slow, &json!({"push": {"timeout": "60s"}}));
    }
    for name in OTHERS {
        subscribe(api, "t", name, &other, &json!({}));
    }
    let publish = |count: usize| {
        let ids = (0..count).map(|n| api.publish("t", &n.to_string(), &[])["id"].as_str().unwrap().to_owned());
        ids.collect::<BTreeSet<String>>()
    };
    let mut ids = publish(30);
    // Without a bulkhead, windows that double would have eight in flight by the time that fourteen came.
    assert!(wait_until(WITHIN, || endpoints.read(|requests| requests.so_far) >= 14));
    // The first request of each is made before it is known to be slow.
    let most = endpoints.read(|requests| requests.most);
    assert!(most <= MAX_IN_FLIGHT / 4 + SLOW.len(), "{most} requests in flight at slow endpoints");
    // Now they do not answer at all: everything that they may have is in flight, and stays so.
    endpoints.change(|requests| requests.held = true);
    ids.extend(publish(30));
    for name in OTHERS {
        settled(api, "t", name);
    }
    let received: Vec<String> = other.received().iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(received.len(), OTHERS.len() * ids.len());
    assert_eq!(received.into_iter().collect::<BTreeSet<_>>(), ids);
    let (in_flight, most) = endpoints.read(|requests| (requests.in_flight, requests.most));
    assert!(in_flight > 0 && most <= MAX_IN_FLIGHT / 4 + SLOW.len(), "{in_flight}, {most}");
    // They get everything in the end.
    endpoints.change(|requests| (requests.held, requests.quick) = (false, true));
    for name in SLOW {
        settled(api, "t", name);
    }
    assert_eq!(slow.received().iter().map(|request| request.id().to_owned()).collect::<BTreeSet<_>>(), ids);
}

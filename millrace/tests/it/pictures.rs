//! Not a test: with `UPDATE` it writes the pictures of the dashboard in `docs/img`, as `make demo` shows it. That of a stopped
//! processor comes from `dashboard_names_counting_that_stopped`, which needs several processes.

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_testkit::{Browser, Child, http};
use serde_json::json;

use crate::page::{picture, text};
use crate::run::{WITHIN, tool};
use crate::tcp::TcpUp;

const HOUR: u64 = 3_600_000;
/// A fourteenth of the events of an hour, as `load --day 20000` distributes them.
const CURVE: [u64; 24] = [12, 9, 6, 4, 3, 3, 5, 12, 22, 30, 34, 38, 44, 42, 40, 41, 45, 52, 60, 66, 64, 52, 36, 22];
/// Less on a weekend.
const WEEK: [u64; 7] = [27, 28, 26, 27, 29, 21, 19];

#[test]
fn pictures_of_the_documents() {
    if std::env::var_os("UPDATE").is_none() {
        return;
    }
    let (mut browser, tcp) = (Browser::start().unwrap(), TcpUp::start(&[]));
    let up = &tcp.up;
    let page = format!("http://{}/", up.query);
    browser.set_viewport(1280, 900, false);
    browser.open(&page);
    let ready = "document.getElementById('connection').textContent == 'live' && document.getElementById('first-event').checkVisibility()";
    assert!(browser.wait_for(ready, WITHIN), "{}", text(&mut browser));
    picture(&mut browser, "empty");

    let demo = ["load", "--day", "20000", "--events", "1000000", "--rate", "20", "--users", "2000", "--clicks", "5"];
    let mut demo = tool(&demo);
    let demo = demo.args(["--connections", "8", "--summary"]).args(up.arguments());
    let mut demo = Child::spawn(demo, &up.directory.path().join("demo.log")).unwrap();
    // Half a minute of rates.
    let drawn = "Number(document.getElementById('ingest-chart').dataset.points ?? 0) >= 15";
    assert!(browser.wait_for(drawn, WITHIN), "{}", text(&mut browser));
    browser.open(&page);
    let drawn = "document.querySelector('#day canvas') && Number(document.getElementById('ingest-chart').dataset.points ?? 0) >= 10";
    assert!(browser.wait_for(drawn, WITHIN), "{}", text(&mut browser));
    for (name, width, dark) in [("demo", 1280, false), ("dark", 1280, true), ("phone", 390, false)] {
        browser.set_viewport(width, 900, dark);
        picture(&mut browser, name);
    }
    demo.interrupt();
    assert!(demo.wait(WITHIN).is_some_and(|status| status.success()), "{}", demo.log());

    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let this_hour = now - now % HOUR;
    for ago in 24..14 * 24 {
        let start = this_hour - ago * HOUR;
        let index = |number: u64| usize::try_from(number).unwrap();
        let count = CURVE[index(start / HOUR % 24)] * WEEK[index(start / HOUR / 24 % 7)];
        let event = |n: u64| {
            let kind = if n % 20 == 7 { "click" } else { "impression" };
            json!({"timestamp": start + n * HOUR / count, "user": format!("user-{}", n * 7_919 % 2_000), "event": kind})
        };
        let events: Vec<_> = (0..count).map(event).collect();
        for part in events.chunks(1_000) {
            let headers = [("content-type", "application/json")];
            let answer = http(up.command, "POST", "/analytics/batch", &headers, &json!(part).to_string()).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    browser.set_viewport(1280, 900, false);
    browser.open(&format!("{page}?range=7d&compare=1"));
    let drawn = "document.querySelector('#day canvas') && document.querySelector('.legend .clicks small')?.textContent";
    assert!(browser.wait_for(&format!("Boolean({drawn})"), WITHIN), "{}", text(&mut browser));
    picture(&mut browser, "week");
}

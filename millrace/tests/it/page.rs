//! The dashboard in a real browser: its numbers equal the API's, update by themselves, and need no other server.

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_testkit::{Browser, free_port, http, not_run, repository, target_dir, wait_until};
use serde_json::json;

use crate::run::{Up, WITHIN};
use crate::tcp::{TcpUp, talk};

#[test]
fn dashboard_shows_the_numbers_of_the_api_and_updates_itself() {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => return not_run("the page", "a browser", &why),
    };
    let up = Up::start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let post = |user: &str, kind: &str| {
        assert_eq!(up.post(&format!("/analytics?timestamp={now}&user={user}&{kind}")).status, 204);
    };
    let origin = format!("http://{}", up.query);
    let shots = target_dir().join("page");
    std::fs::create_dir_all(&shots).unwrap();

    browser.set_viewport(1280, 900, false);
    browser.open(&format!("{origin}/"));
    let deliberate =
        "!document.getElementById('day-empty').hidden && document.getElementById('clicks').textContent == '0'";
    assert!(browser.wait_for(deliberate, WITHIN), "an empty day says so: {}", text(&mut browser));
    browser.screenshot(&shots.join("empty.png"));

    post("ann", "click");
    post("ann", "impression");
    post("bob", "click");
    let numbers =
        "['unique_users', 'clicks', 'impressions'].map((id) => document.getElementById(id).textContent).join()";
    assert!(browser.wait_for(&format!("{numbers} == '2,2,1'"), WITHIN), "it moves: {}", text(&mut browser));
    let api = format!("unique_users,{}\nclicks,{}\nimpressions,{}\n", 2, 2, 1);
    let now_ms = u64::try_from(now).unwrap();
    assert!(wait_until(WITHIN, || up.lines(now_ms) == api), "{}", up.lines(now_ms));
    let drawn = "document.querySelector('#day canvas') !== null && document.getElementById('day-empty').hidden";
    assert!(browser.wait_for(drawn, WITHIN), "the day is drawn");
    let row =
        "[...document.querySelectorAll('#day-table tbody tr:first-child td')].map((cell) => cell.textContent).join()";
    assert!(browser.wait_for(&format!("{row} == '2,2,1'"), WITHIN), "the table has the same numbers");
    let lag = "document.querySelectorAll('#lag-rows div').length >= 2 && document.querySelectorAll('#health .ok').length >= 5";
    assert!(browser.wait_for(lag, WITHIN), "lag and health: {}", text(&mut browser));

    // The values of a point, a series less, another range: all of it in the URL.
    browser.hover("#day .u-over");
    let tip = "document.querySelector('.tip')?.textContent.includes('Clicks0')";
    assert!(browser.wait_for(tip, WITHIN), "{}", browser.value("document.querySelector('.tip')?.textContent"));
    let note = browser.value("document.getElementById('day-note').textContent");
    assert_eq!(note, "2 clicks and 1 impression. The last hour is still running (dashed).");
    assert!(browser.tab_to(".legend .clicks"));
    browser.press("Space");
    assert_eq!(browser.value("[document.activeElement.ariaPressed, location.search].join()"), "false,?hide=clicks");
    browser.value("range.value = '7d'; range.dispatchEvent(new Event('change'))");
    let week = "document.querySelectorAll('#day-table tbody tr').length == 168";
    assert!(browser.wait_for(week, WITHIN), "{}", text(&mut browser));
    // A file of the same; a policy that forbids it is an error of the page.
    browser.value("csv.click()");
    assert!(wait_until(WITHIN, || {
        browser.value("0");
        browser.downloads().iter().any(|name| name.ends_with("-by-hour.csv"))
    }));
    browser.open(&format!("{origin}/?range=7d&step=day&hide=clicks"));
    let days = "document.querySelectorAll('#day-table tbody tr').length == 7";
    assert!(browser.wait_for(days, WITHIN), "{}", text(&mut browser));
    assert_eq!(browser.value("document.getElementById('day-title').textContent"), "Last 7 days");
    browser.open(&format!("{origin}/"));
    assert!(browser.wait_for(&format!("{drawn} && {lag}"), WITHIN), "{}", text(&mut browser));
    let live = "document.getElementById('connection').textContent == 'live'";
    assert!(browser.wait_for(live, WITHIN), "{}", text(&mut browser));
    assert_eq!(browser.nameless(), [] as [String; 0]);

    for (name, width, height, dark) in [
        ("desktop", 1280, 900, false),
        ("dark", 1280, 900, true),
        ("phone", 390, 844, false),
        ("small", 320, 700, false),
    ] {
        browser.set_viewport(width, height, dark);
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert!(browser.wait_for(fits, WITHIN), "{name}: nothing sticks out");
        browser.screenshot(&shots.join(format!("{name}.png")));
    }
    // The first stop of the tabulator is the way past the head; every chart has words.
    assert_eq!(browser.value("document.querySelector('a').className"), "skip");
    assert_eq!(browser.value("[...document.querySelectorAll('.chart')].every((chart) => chart.ariaLabel)"), true);

    assert_eq!(browser.errors(), [] as [String; 0]);
    let strangers: Vec<&String> = browser.requests().iter().filter(|url| !url.starts_with(&origin)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");

    drop(up);
    let lost = "document.getElementById('connection').textContent.startsWith('disconnected')";
    assert!(browser.wait_for(lost, WITHIN), "it says that nobody answers: {}", text(&mut browser));
    let unknown = "document.querySelectorAll('#health .ok').length == 0 && document.getElementById('lag').textContent == 'not known'";
    assert!(browser.wait_for(unknown, WITHIN), "nothing is claimed that is not known: {}", text(&mut browser));
    browser.screenshot(&shots.join("disconnected.png"));
}

#[test]
fn dashboard_is_not_live_while_a_process_cannot_be_reached() {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => return not_run("the page", "a browser", &why),
    };
    let gone = format!("127.0.0.1:{}", free_port());
    let up = Up::with(&[("query.watch", &format!("[\"{gone}\"]"))]);
    browser.open(&format!("http://{}/", up.query));
    let named = format!("document.getElementById('connection').textContent == 'not ready: {gone}'");
    assert!(browser.wait_for(&named, WITHIN), "{}", text(&mut browser));
    assert_eq!(browser.value("document.getElementById('lag').textContent"), "not known");
    assert_eq!(browser.value("document.querySelector('#health .bad').textContent"), format!("{gone}: not ready"));
}

#[test]
fn dashboard_shows_messages_over_tcp() {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => return not_run("the page", "a browser", &why),
    };
    let tcp = TcpUp::start(&[("command.tcp.max_message_bytes", "8B")]);
    browser.open(&format!("http://{}/", tcp.up.query));
    let replies = talk(tcp.server, b"sensor7 1 5\nhello\nsensor7 2 9\nmuch more\nsensor7 3 2\nhi\n");
    assert_eq!(replies.lines().filter(|reply| reply.starts_with("ACK")).count(), 2, "{replies}");
    let facts = "document.getElementById('tcp-facts').innerText.replaceAll(/\\s+/g, ' ')";
    let shown =
        "Open connections 0 Acknowledged since start 2 In the journal since start 2 Refused since start: too-large 1";
    assert!(browser.wait_for(&format!("{facts} == '{shown}'"), WITHIN), "{}", browser.value(facts));
    let rate = "Number(document.getElementById('tcp-rate').textContent) >= 0";
    assert!(browser.wait_for(rate, WITHIN), "{}", text(&mut browser));
}

/// Not a test: with `UPDATE` it writes the pictures of the dashboard in the documents, of a day as a shop has it.
#[test]
fn pictures_of_the_documents() {
    if std::env::var_os("UPDATE").is_none() {
        return;
    }
    let (mut browser, tcp) = (Browser::start().unwrap(), TcpUp::start(&[]));
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let post = |hour: i64, impressions: i64| {
        let event = |n: i64| {
            let kind = if n % 20 == 7 { "click" } else { "impression" };
            let timestamp = (now - hour * 3_600_000).min(now);
            json!({"timestamp": timestamp, "user": format!("user-{}", n * 7919 % (impressions * 2 / 3 + 1)), "event": kind})
        };
        let events: Vec<_> = (0..impressions).map(event).collect();
        let headers = [("content-type", "application/json")];
        let answer = http(tcp.up.command, "POST", "/analytics/batch", &headers, &json!(events).to_string()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    // Few at night, most in the evening.
    let curve = [12, 9, 6, 4, 3, 3, 5, 12, 22, 30, 34, 38, 44, 42, 40, 41, 45, 52, 60, 66, 64, 52, 36, 22];
    let this_hour = usize::try_from(now / 3_600_000 % 24).unwrap();
    for ago in 1..24 {
        post(i64::try_from(ago).unwrap(), curve[(this_hour + 24 - ago) % 24] * 14);
    }
    browser.set_viewport(1280, 900, false);
    browser.open(&format!("http://{}/", tcp.up.query));
    for step in 0..12 {
        post(0, 60 + step % 5 * 9);
        let lines = (1..=40).map(|n| format!("sensor7 {} 5\nhello\n", step * 40 + n)).collect::<Vec<_>>().concat();
        talk(tcp.server, lines.as_bytes());
        let before = browser
            .value("Number(document.getElementById('ingest-chart').dataset.points ?? 0)")
            .as_f64()
            .unwrap_or_default();
        let drawn = format!("Number(document.getElementById('ingest-chart').dataset.points ?? 0) > {before}");
        assert!(browser.wait_for(&drawn, WITHIN), "{}", text(&mut browser));
    }
    let images = repository().join("docs/img");
    for (name, width, dark) in [("page", 1280, false), ("page-dark", 1280, true), ("page-phone", 390, false)] {
        browser.set_viewport(width, 900, dark);
        assert!(browser.wait_for("document.documentElement.scrollWidth <= innerWidth", WITHIN));
        browser.screenshot(&images.join(format!("{name}.png")));
    }
}

fn text(browser: &mut Browser) -> String {
    browser.value("document.body.innerText").to_string()
}

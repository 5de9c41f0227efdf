//! The dashboard in a real browser: its numbers equal the API's, update by themselves, and need no other server.

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_testkit::{Browser, free_port, http, not_run, repository, target_dir, wait_until};
use serde_json::json;

use crate::cluster::Cluster;
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
    let post = |user: &str, kind: &str| post_at(&up, now, user, kind);
    let origin = format!("http://{}", up.query);
    let shots = target_dir().join("page");
    std::fs::create_dir_all(&shots).unwrap();

    browser.set_viewport(1280, 900, false);
    browser.open(&format!("{origin}/"));
    let deliberate =
        "!document.getElementById('day-empty').hidden && document.getElementById('clicks').textContent == '0'";
    assert!(browser.wait_for(deliberate, WITHIN), "an empty day says so: {}", text(&mut browser));
    let first = format!("curl -d 'user=alice&event=click' http://{}/analytics", up.command);
    let shown = format!(
        "document.getElementById('first-event').checkVisibility() && document.getElementById('first-event').textContent == {}",
        json!(first)
    );
    assert!(browser.wait_for(&shown, WITHIN), "{}", text(&mut browser));
    assert_eq!(browser.inaccessible(), [] as [String; 0], "empty");
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
    assert_eq!(note, "The last hour is still running (dashed).");
    let totals = "[...document.querySelectorAll('.legend b')].map((total) => total.textContent).join()";
    assert_eq!(browser.value(totals), ",2,1");
    assert!(browser.tab_to(".legend .clicks"));
    browser.press("Space");
    assert_eq!(browser.value("[document.activeElement.ariaPressed, location.search].join()"), "false,?hide=clicks");
    browser.value("range.value = '7d'; range.dispatchEvent(new Event('change'))");
    let week = "document.querySelectorAll('#day-table tbody tr').length == 168";
    assert!(browser.wait_for(week, WITHIN), "{}", text(&mut browser));
    compares_with_the_period_before(&mut browser, &up, now);
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
    assert_eq!(browser.value("document.getElementById('metrics').href"), format!("http://{}/metrics", up.admin));

    for (name, width, height, dark) in [
        ("desktop", 1280, 900, false),
        ("dark", 1280, 900, true),
        ("phone", 390, 844, false),
        ("small", 320, 700, false),
    ] {
        browser.set_viewport(width, height, dark);
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert!(browser.wait_for(fits, WITHIN), "{name}: nothing sticks out");
        assert_eq!(browser.inaccessible(), [] as [String; 0], "{name}");
        browser.screenshot(&shots.join(format!("{name}.png")));
    }
    // The first stop of the tabulator is the way past the head; every chart has words.
    assert_eq!(browser.value("document.querySelector('a').className"), "skip");
    assert_eq!(browser.value("[...document.querySelectorAll('.chart')].every((chart) => chart.ariaLabel)"), true);

    assert_eq!(browser.errors(), [] as [String; 0]);
    let strangers: Vec<&String> = browser.requests().iter().filter(|url| !url.starts_with(&origin)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");

    // What the empty page said.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(http(up.command, "POST", "/analytics", &form, "user=alice&event=click").unwrap().status, 204);

    drop(up);
    let lost = "document.getElementById('connection').textContent.startsWith('disconnected')";
    assert!(browser.wait_for(lost, WITHIN), "it says that nobody answers: {}", text(&mut browser));
    let unknown = "document.querySelectorAll('#health .ok').length == 0 && document.getElementById('lag').textContent == 'not known'";
    assert!(browser.wait_for(unknown, WITHIN), "nothing is claimed that is not known: {}", text(&mut browser));
    assert_eq!(browser.inaccessible(), [] as [String; 0], "disconnected");
    browser.screenshot(&shots.join("disconnected.png"));
}

fn post_at(up: &Up, timestamp: u128, user: &str, kind: &str) {
    assert_eq!(up.post(&format!("/analytics?timestamp={timestamp}&user={user}&{kind}")).status, 204);
}

fn compares_with_the_period_before(browser: &mut Browser, up: &Up, now: u128) {
    // The period before, which has one click in hours that are over.
    let earlier = now - 30 * 3_600_000;
    post_at(up, earlier, "ann", "click");
    let one = "unique_users,1\nclicks,1\nimpressions,0\n";
    assert!(wait_until(WITHIN, || up.lines(u64::try_from(earlier).unwrap()) == one));
    browser.value("range.value = '24h'; range.dispatchEvent(new Event('change')); compare.click()");
    let change = "document.querySelector('.legend .clicks small').textContent == '−100 %'";
    assert!(browser.wait_for(change, WITHIN), "{}", text(browser));
    assert_eq!(browser.value("location.search"), "?compare=1&hide=clicks");
    browser.hover("#day .u-over");
    let before = "document.querySelector('.tip')?.textContent.includes('(before: ')";
    assert!(browser.wait_for(before, WITHIN), "{}", browser.value("document.querySelector('.tip')?.textContent"));
}

/// A processor that was killed reports no lag: what the reader of the log finds is shown, and nothing is "live".
#[test]
fn dashboard_names_counting_that_stopped() {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => return not_run("the page", "a browser", &why),
    };
    let Some(mut cluster) = Cluster::on_shared_servers("the page", 1) else { return };
    let watched = ["command", "processor", "materializer", "delivery"].map(|role| cluster.node(role).admin.to_string());
    cluster.add_with("query", &[("query.watch", json!(watched).to_string())]).wait_ready();
    let (command, query) = (cluster.publics("command")[0], cluster.publics("query")[1]);
    let (write, read) = (format!("http://{command}"), format!("http://{query}"));
    let day = ["load", "--day", "5000", "--events", "5000", "--users", "500", "--clicks", "5", "--summary"];
    let output = cluster.tool(&[&day[..], &["--command", &write, "--query", &read]].concat());
    assert!(output.status.success(), "{output:?}");

    browser.set_viewport(1280, 900, false);
    browser.open(&read);
    let badge = "document.getElementById('connection').textContent";
    assert!(browser.wait_for(&format!("{badge} == 'live'"), WITHIN), "{}", text(&mut browser));
    cluster.node("processor").service.kill();
    let events: Vec<_> =
        (0..300).map(|n| json!({"timestamp": now_ms(), "user": format!("late-{n}"), "event": "click"})).collect();
    let headers = [("content-type", "application/json")];
    let answer = http(command, "POST", "/analytics/batch", &headers, &json!(events).to_string()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let named = format!("{badge}.startsWith('Counting stopped') && {badge}.endsWith('300 events waiting')");
    assert!(browser.wait_for(&named, WITHIN), "{}", text(&mut browser));
    assert_eq!(browser.value("document.getElementById('connection').className"), "badge stale");
    assert_eq!(browser.value("document.title.startsWith('Counting stopped')"), true);
    let down = "[...document.querySelectorAll('#health .bad')].some((item) => item.textContent.startsWith('processor')) \
                && document.getElementById('lag').textContent == 'not known' && document.querySelector('.tiles.stale') !== null";
    assert!(browser.wait_for(down, WITHIN), "{}", text(&mut browser));
    assert_eq!(browser.inaccessible(), [] as [String; 0]);
    picture(&mut browser, "stopped");
}

/// With `UPDATE`, writes the picture of the dashboard of this name in the documents.
pub(crate) fn picture(browser: &mut Browser, name: &str) {
    if std::env::var_os("UPDATE").is_some() {
        assert!(browser.wait_for("document.documentElement.scrollWidth <= innerWidth", WITHIN), "{name}");
        browser.screenshot(&repository().join(format!("docs/img/page-{name}.png")));
    }
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

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub(crate) fn text(browser: &mut Browser) -> String {
    browser.value("document.body.innerText").to_string()
}

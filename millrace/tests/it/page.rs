//! The dashboard in a real browser: its numbers equal the API's, update by themselves, and need no other server.

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_testkit::{Browser, not_run, target_dir, wait_until};

use crate::run::{Up, WITHIN};

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
    let lag = "document.querySelectorAll('#lag-rows .row').length >= 2 && document.querySelectorAll('#health .ok').length >= 5";
    assert!(browser.wait_for(lag, WITHIN), "lag and health: {}", text(&mut browser));

    for (name, width, height, dark) in
        [("desktop", 1280, 900, false), ("dark", 1280, 900, true), ("phone", 390, 844, false)]
    {
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
    browser.screenshot(&shots.join("disconnected.png"));
}

fn text(browser: &mut Browser) -> String {
    browser.value("document.body.innerText").to_string()
}

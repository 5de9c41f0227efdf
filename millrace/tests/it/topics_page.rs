//! The page of topics in a real browser: it shows what the API has, its acts take effect, and it is used by keyboard.

use millrace_testkit::{Browser, http, http_get, not_run, repository, target_dir, wait_until};
use serde_json::{Value, json};

use crate::auth::{Keys, bearer};
use crate::push::receiver::Receiver;
use crate::run::{Up, WITHIN};
use crate::topics::Api;

const NONE: &Value = &Value::Null;

fn text(browser: &mut Browser) -> String {
    browser.value("document.body.innerText").to_string()
}

/// Waits until an element has this text.
fn shows(browser: &mut Browser, selector: &str, words: &str) {
    let has = format!("document.querySelector({})?.textContent.includes({})", json!(selector), json!(words));
    assert!(browser.wait_for(&has, WITHIN), "{selector} has {words}: {}", text(browser));
}

/// A selector of a subscription's row.
fn row(subscription: &str) -> String {
    format!("[data-name=\"{subscription}\"]")
}

/// Topics with subscriptions in several states: one that nobody reads, one with two dead letters, one whose endpoint fails, and
/// one that is up to date.
fn fill(api: Api, receiver: &Receiver, failing: &Receiver) {
    receiver.answers(|request| match request.text() {
        "{\"order\": 3}" => Some((400, "content-type: text/plain\r\n")),
        "{\"order\": 4}" => Some((422, "")),
        _ => Some((204, "")),
    });
    let described = json!({"description": "Orders of the shop, one message for each change"});
    api.expect("PUT", "/v1/topics/orders", &described, 201);
    api.expect("PUT", "/v1/topics/returns", NONE, 201);
    api.expect("PUT", "/v1/topics/signups", NONE, 201);
    let (pull, push) = (
        json!({"mode": "pull"}),
        |receiver: &Receiver, permanent: &[u16]| json!({"mode": "push", "push": {"url": receiver.url(), "permanent_statuses": permanent}}),
    );
    api.expect("PUT", "/v1/topics/orders/subscriptions/billing", &pull, 201);
    api.expect("PUT", "/v1/topics/orders/subscriptions/hook", &push(receiver, &[400, 422]), 201);
    api.expect("PUT", "/v1/topics/returns/subscriptions/partner", &push(failing, &[]), 201);
    api.expect("PUT", "/v1/topics/returns/subscriptions/stock", &pull, 201);
    for number in 1..=5 {
        let json = [("content-type", "application/json")];
        api.publish("orders", &format!("{{\"order\": {number}}}"), &json);
        api.publish("returns", &format!("{{\"order\": {number}}}"), &json);
    }
    for _ in 0..5 {
        let message = api.get("returns", "stock", "");
        api.ack("returns", "stock", message.header("millrace-token").unwrap());
    }
}

#[test]
fn topics_are_shown_and_dead_letters_redriven_by_keyboard() {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => return not_run("the page of topics", "a browser", &why),
    };
    let up = Up::with(&[("delivery.allow_targets", "[\"127.0.0.0/8\"]")]);
    let (api, receiver) = (Api(up.command), Receiver::start());
    let origin = format!("http://{}", up.command);
    let shots = target_dir().join("page");
    std::fs::create_dir_all(&shots).unwrap();

    browser.set_viewport(1280, 900, false);
    browser.open(&format!("{origin}/topics"));
    shows(&mut browser, "#empty-title", "No topics yet");
    shows(&mut browser, "#empty-how", &format!("curl -X PUT {origin}/v1/topics/orders"));
    browser.screenshot(&shots.join("topics-empty.png"));

    let failing = Receiver::start();
    failing.answers(|_| Some((503, "")));
    fill(api, &receiver, &failing);
    shows(&mut browser, &row("billing"), "5 waiting");
    shows(&mut browser, &row("hook"), "2 dead letters");
    shows(&mut browser, &row("hook"), "60 % success");
    shows(&mut browser, &row("partner"), "failing: http-status");
    shows(&mut browser, &row("stock"), "up to date");
    shows(&mut browser, "#attention", "2 of 4");
    shows(&mut browser, "[aria-label=\"Topic orders\"]", "5 messages");
    shows(&mut browser, "[aria-label=\"Topic signups\"]", "No subscriptions.");

    // What is published meanwhile shows up, and makes a rate.
    api.publish("orders", "{\"order\": 6}", &[("content-type", "application/json")]);
    shows(&mut browser, &row("billing"), "6 waiting");
    assert!(browser.wait_for("Number(document.querySelector('#published').textContent) > 0", WITHIN));

    // From the beginning of the page to the row, by keyboard alone.
    browser.value("document.activeElement.blur(), scrollTo(0, 0)");
    browser.press("Tab");
    assert_eq!(browser.value("document.activeElement.className"), "skip");
    assert!(browser.tab_to(&format!("{} > summary", row("hook"))), "{}", text(&mut browser));
    browser.press("Enter");
    let letters = "document.querySelectorAll('.panel table')[0]?.tBodies[0].rows.length == 2";
    let attempts = "document.querySelectorAll('.panel table')[1]?.tBodies[0].rows.length == 6";
    assert!(browser.wait_for(&format!("{letters} && {attempts}"), WITHIN), "{}", text(&mut browser));
    shows(&mut browser, ".panel", "{\"order\":3}");
    assert_eq!(browser.value("location.search"), "?open=orders%2Fhook", "the URL has what is open");
    for (name, width, dark) in
        [("desktop", 1280, false), ("dark", 1280, true), ("phone", 390, false), ("small", 320, false)]
    {
        browser.set_viewport(width, 900, dark);
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert!(browser.wait_for(fits, WITHIN), "{name}: nothing sticks out");
        browser.screenshot(&shots.join(format!("topics-{name}.png")));
        assert_eq!(browser.inaccessible(), [] as [String; 0], "{name}");
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::copy(shots.join("topics-desktop.png"), repository().join("docs/img/topics.png")).unwrap();
    }
    browser.set_viewport(1280, 900, false);
    assert_eq!(browser.inaccessible(), [] as [String; 0]);

    // An act that is not confirmed has no effect, and the focus returns.
    assert!(browser.tab_to(".redrive"));
    browser.press("Enter");
    assert!(browser.wait_for("document.querySelector('#confirm').open", WITHIN));
    assert_eq!(browser.inaccessible(), [] as [String; 0]);
    browser.screenshot(&shots.join("topics-confirm.png"));
    browser.press("Escape");
    assert!(browser.wait_for("!document.querySelector('#confirm').open", WITHIN));
    assert_eq!(browser.value("document.activeElement.className"), "redrive");
    assert_eq!(
        api.expect("GET", "/v1/topics/orders/subscriptions/hook/dead-letters", NONE, 200)["dead_letters"][1]["reason"],
        "permanent-status"
    );

    receiver.answers(|_| Some((204, "")));
    browser.press("Enter");
    assert!(browser.wait_for("document.querySelector('#confirm').open", WITHIN));
    assert!(browser.tab_to("#confirm-yes"));
    browser.press("Enter");
    shows(&mut browser, ".progress", "Redrive done: 2 of 2 messages settled.");
    shows(&mut browser, &row("hook"), "0 dead letters");
    shows(&mut browser, ".panel", "No dead letters.");
    assert_eq!(browser.value("document.activeElement.className"), "progress", "the focus is where the result is");
    assert_eq!(receiver.received().len(), 8);
    let letters = api.expect("GET", "/v1/topics/orders/subscriptions/hook/dead-letters", NONE, 200);
    assert_eq!(letters["dead_letters"], json!([]));

    assert!(browser.tab_to(".suspend"));
    browser.press("Space");
    assert!(browser.wait_for("document.querySelector('#confirm').open", WITHIN));
    assert!(browser.tab_to("#confirm-yes"));
    browser.press("Enter");
    shows(&mut browser, &format!("{} .state", row("hook")), "suspended");
    assert_eq!(api.subscription("orders", "hook")["state"], "suspended");

    assert_eq!(browser.errors(), [] as [String; 0]);
    let strangers: Vec<&String> = browser.requests().iter().filter(|url| !url.starts_with(&origin)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    drop(up);
    shows(&mut browser, "#connection", "disconnected");
    shows(&mut browser, "#notice", "unreachable");
    assert_eq!(browser.value("document.querySelector('main').className"), "stale");
    browser.screenshot(&shots.join("topics-disconnected.png"));
}

#[test]
fn a_search_and_the_page_are_in_the_url() {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => return not_run("the page of topics", "a browser", &why),
    };
    let up = Up::start();
    let api = Api(up.command);
    for number in 10..35 {
        api.expect("PUT", &format!("/v1/topics/t{number}"), NONE, 201);
    }
    let first = "document.querySelector('.topic h3')?.textContent";
    let count = "document.querySelectorAll('.topic').length";
    browser.open(&format!("http://{}/topics", up.command));
    assert!(browser.wait_for(&format!("{count} == 20 && {first} == 't10'"), WITHIN), "{}", text(&mut browser));
    assert!(browser.tab_to("#next"));
    browser.press("Enter");
    assert!(browser.wait_for(&format!("{count} == 5 && {first} == 't30'"), WITHIN), "{}", text(&mut browser));
    assert_eq!(browser.value("location.search"), "?after=t29");
    assert_eq!(browser.value("document.activeElement.id"), "main");
    browser.open(&format!("http://{}/topics?prefix=t2", up.command));
    assert!(browser.wait_for(&format!("{count} == 10 && {first} == 't20'"), WITHIN), "{}", text(&mut browser));
    assert_eq!(browser.value("document.querySelector('#prefix').value"), "t2");
}

#[test]
fn a_browser_with_a_key_sees_and_does_what_the_key_may() {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => return not_run("the page of topics", "a browser", &why),
    };
    let keys = Keys::new();
    let (owner, reader) =
        (keys.create("shop", &["topics:manage", "topics:subscribe"]), keys.create("charts", &["counts:read"]));
    let up = keys.up();
    let with = |key: &str, method: &str, path: &str, body: &str| {
        let headers = [("authorization", &*bearer(key)), ("content-type", "application/json")];
        http(up.command, method, path, &headers, body).unwrap()
    };
    assert_eq!(with(&owner, "PUT", "/v1/topics/orders", "").status, 201);
    assert_eq!(with(&owner, "PUT", "/v1/topics/orders/subscriptions/billing", "{\"mode\": \"pull\"}").status, 201);
    assert_eq!(with(&reader, "GET", "/topics", "").status, 403, "counts are no topics");

    browser.open(&format!("http://shop:{owner}@{}/topics?open=orders/billing", up.command));
    shows(&mut browser, &row("billing"), "up to date");
    assert!(browser.tab_to(".suspend"));
    browser.press("Enter");
    assert!(browser.wait_for("document.querySelector('#confirm').open", WITHIN));
    assert!(browser.tab_to("#confirm-yes"));
    browser.press("Enter");
    shows(&mut browser, &format!("{} .state", row("billing")), "suspended");
    // The key is revoked: what is shown is marked as old.
    keys.revoke("shop");
    let old = "document.querySelector('main').className == 'stale'";
    assert!(browser.wait_for(old, WITHIN), "{}", text(&mut browser));
}

#[test]
fn each_side_leads_to_the_other() {
    let up = Up::start();
    for (from, path, to) in [
        (up.command, "/", format!("http://{}/", up.query)),
        (up.query, "/topics", format!("http://{}/topics", up.command)),
    ] {
        let answer = http_get(from, path).unwrap();
        assert_eq!((answer.status, answer.header("location")), (307, Some(&*to)));
    }
    let up = Up::with(&[("command.query_url", "https://read.example/")]);
    let is_there =
        || http_get(up.command, "/").is_ok_and(|answer| answer.header("location") == Some("https://read.example/"));
    assert!(wait_until(WITHIN, is_there));
}

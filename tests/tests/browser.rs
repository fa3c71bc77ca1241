//! A browser, headless Chromium, behind httpd as docs/balancers configures it: it logs in by FORM and fills a
//! basket, and the node that serves it is killed at the worst moments. Screenshots go to target/run.
//!
//! A slice is part of the tests. Each death, over HTTP and over AJP, again and again (four minutes):
//!
//! ```sh
//! RINGTRIBE_BROWSER=full cargo test -p ringtribe-tests --test browser -- --nocapture
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringtribe_tests::balancer::{Balancer, Kind};
use ringtribe_tests::build;
use ringtribe_tests::pair::{Pair, ROUTES, SECRET};
use ringtribe_tests::process::Patience;
use ringtribe_tests::webdriver::{self, Chromium};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(60), pause: Duration::from_millis(20) };
const USER: &str = "maria";
const PASSWORD: &str = "open sesame & more";
/// How often each, when all is wanted.
const REPETITIONS_COUNT: usize = 3;

/// When the node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    BetweenClicks,
    /// The servlet has the item of the POST, nobody else does.
    InServlet,
    /// The other node has acknowledged the item; the browser has no answer.
    AfterCopying,
    BetweenLoginPageAndPassword,
}

impl Death {
    const ALL: [Self; 4] = [
        Self::BetweenClicks,
        Self::InServlet,
        Self::AfterCopying,
        Self::BetweenLoginPageAndPassword,
    ];
}

/// A browser, the balancers that it may ask, and the two nodes behind them.
struct Shop {
    // The first to go: its driver tells the browser to end.
    chromium: Chromium,
    fronts: Vec<Balancer>,
    pair: Pair,
    pictures: PathBuf,
    pictures_count: usize,
}

/// The page of the basket.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    user: String,
    basket: Vec<String>,
}

fn page(basket: &[&str]) -> Page {
    Page { user: USER.into(), basket: basket.iter().map(|&item| item.into()).collect() }
}

impl Shop {
    fn open(kinds: &[Kind], edit: fn(String) -> String) -> Self {
        let read = |name: &str| {
            let file = build::root().join("tests/testdata/shop").join(name);
            fs::read_to_string(file).expect("a file of the shop")
        };
        let files = [
            ("../webapps/shop/WEB-INF/web.xml".to_owned(), read("web.xml")),
            ("tomcat-users.xml".to_owned(), read("tomcat-users.xml")),
        ];
        let pair = Pair::start("synchronous", &files, |text| {
            let host = "<Host name=\"localhost\"";
            assert_eq!(text.matches(host).count(), 1, "{text}");
            let more = "<Realm className=\"org.apache.catalina.realm.MemoryRealm\"/>\n      \
                <Valve className=\"org.ringtribe.test.HoldValve\"/>\n      ";
            text.replace(host, &format!("{more}{host}"))
        })
        .expect("both start");
        let directory = pair.directory();
        let start = |kind: &Kind| {
            Balancer::start(*kind, &directory, pair.nodes().clone(), SECRET, edit)
                .expect("it starts")
        };
        let fronts = kinds.iter().map(start).collect();
        let pictures = directory.join("browser");
        let chromium = Chromium::start(&pictures).expect("a browser");
        let shop = Self { chromium, fronts, pair, pictures, pictures_count: 0 };
        ROUTES.iter().for_each(|node| shop.await_service(node));
        shop
    }

    fn await_service(&self, node: &str) {
        for front in &self.fronts {
            let what = format!("{} gives to {node}", front.kind().word());
            PATIENCE.until(&what, || front.gives_to(node));
        }
    }

    fn url(&self, kind: Kind) -> String {
        let front = self.fronts.iter().find(|front| front.kind() == kind).expect("it was started");
        format!("http://{}/shop/basket", front.address())
    }

    fn picture(&mut self, what: &str) {
        self.pictures_count += 1;
        let file = self.pictures.join(format!("{:02}-{what}.png", self.pictures_count));
        self.chromium.screenshot(&file).expect("a picture");
        let size = fs::metadata(&file).expect("a file").len();
        assert!(size > 1000, "{}: {size} B", file.display());
    }

    /// What is read in the one element that fits.
    fn text(&self, selector: &str) -> String {
        let mut texts = self.chromium.texts(selector).expect("an answer");
        let whole = || self.chromium.texts("body").expect("an answer");
        assert_eq!(texts.len(), 1, "{selector} on the page: {:?}", whole());
        texts.remove(0)
    }

    fn page(&self) -> Page {
        let basket = self.chromium.texts("#basket .item").expect("an answer");
        Page { user: self.text("#user"), basket }
    }

    /// Which node has served the page; the cookie names it.
    fn node(&self) -> usize {
        let name = self.text("#node");
        let cookie = self.chromium.cookie("JSESSIONID").expect("an answer").expect("a session");
        assert!(cookie.ends_with(&format!(".{name}")), "{name} has served {cookie}");
        ROUTES.iter().position(|route| **route == name).expect("one of both")
    }

    fn ask_for_login(&self, kind: Kind) {
        self.chromium.forget_cookies().expect("an answer");
        self.chromium.open(&self.url(kind)).expect("a page");
        assert_eq!(self.text("#login"), "Who are you?");
    }

    fn give_password(&self, password: &str) {
        self.chromium.type_into("[name=j_username]", USER).expect("a field");
        self.chromium.type_into("[name=j_password]", password).expect("a field");
        self.chromium.click("#go").expect("a page");
    }

    fn put(&self, item: &str) {
        self.chromium.type_into("[name=item]", item).expect("a field");
        self.chromium.click("#go").expect("a page");
    }

    fn kill(&mut self, node: usize) {
        self.pair.take(node).kill().expect("it runs");
    }

    /// A POST that is held where its item says, and never answered: its node is killed.
    fn kill_while_held(&mut self, node: usize, item: &str) {
        let tomcat = self.pair.take(node);
        self.chromium.type_into("[name=item]", item).expect("a field");
        let expected = item.to_owned();
        let killer = std::thread::spawn(move || {
            let held = tomcat.await_line("HELD ", PATIENCE.within).expect("it is held");
            assert_eq!(held, expected);
            tomcat.kill().expect("it runs");
        });
        self.chromium.click("#go").expect("a page");
        killer.join().expect("it was held, and killed");
    }

    /// One visit, with this death; the node that died.
    fn visit(&mut self, kind: Kind, death: Death) -> usize {
        let name = format!("{}-{death:?}", kind.word());
        self.ask_for_login(kind);
        let dead = if death == Death::BetweenLoginPageAndPassword {
            let dead = self.node();
            self.picture(&format!("{name}-1-login"));
            self.kill(dead);
            self.give_password(PASSWORD);
            dead
        } else {
            self.give_password(PASSWORD);
            assert_eq!(self.page(), page(&[]), "logged in");
            self.put("apples");
            assert_eq!(self.page(), page(&["apples"]));
            self.picture(&format!("{name}-1-before"));
            self.node()
        };
        match death {
            // It is what was asked for before the login, and the user is known.
            Death::BetweenLoginPageAndPassword => {
                assert_eq!(self.page(), page(&[]), "the login of the other node");
                self.put("apples");
            }
            Death::BetweenClicks => self.kill(dead),
            Death::InServlet | Death::AfterCopying => {
                let item = if death == Death::InServlet {
                    "held-in-servlet"
                } else {
                    "held-after-copying"
                };
                self.kill_while_held(dead, item);
                self.picture(&format!("{name}-2-answer"));
                // A POST that may have been carried out is not sent again: httpd says so, with 502 over
                // HTTP and 500 over AJP.
                let answer = self.text("body");
                let says =
                    if kind == Kind::HttpdAjp { "Internal Server Error" } else { "Proxy Error" };
                assert!(answer.starts_with(says), "{answer}");
                println!("    {name}: {}", answer.lines().next().unwrap_or_default());
                self.chromium.open(&self.url(kind)).expect("a page");
            }
        }
        // What was answered, or at least acknowledged by the other node, is there, and once.
        let mut expected = vec!["apples"];
        if death == Death::AfterCopying {
            expected.push("held-after-copying");
        }
        if death != Death::BetweenClicks {
            assert_eq!(self.page(), page(&expected), "{name}");
        }
        self.put("pears");
        expected.push("pears");
        assert_eq!(self.page(), page(&expected), "{name}, the next click");
        assert_eq!(self.node(), 1 - dead, "{name}: the other one serves");
        self.picture(&format!("{name}-3-after"));
        dead
    }
}

fn is_full() -> bool {
    std::env::var("RINGTRIBE_BROWSER").is_ok_and(|which| which == "full")
}

#[test]
fn a_browser_keeps_login_and_basket_when_its_node_dies() {
    let kinds = [Kind::HttpdHttp, Kind::HttpdAjp];
    if !webdriver::is_installed() || !kinds.iter().all(|kind| kind.is_installed()) {
        return;
    }
    let visits: Vec<(Kind, Death)> = if is_full() {
        let each = |kind| Death::ALL.map(|death| (kind, death));
        kinds.into_iter().flat_map(each).collect::<Vec<_>>().repeat(REPETITIONS_COUNT)
    } else {
        vec![
            (Kind::HttpdHttp, Death::BetweenLoginPageAndPassword),
            (Kind::HttpdAjp, Death::InServlet),
            (Kind::HttpdHttp, Death::AfterCopying),
            (Kind::HttpdAjp, Death::BetweenClicks),
        ]
    };
    let mut shop = Shop::open(&kinds, |text| text);
    // Who does not know the password gets nothing, so a login that is kept is one.
    shop.ask_for_login(visits[0].0);
    shop.give_password("open");
    assert_eq!(shop.text("#login"), "Nobody we know");
    let mut dead = None;
    for (kind, death) in visits {
        if let Some(dead) = dead {
            shop.pair.start_node(dead).expect("it starts again");
            shop.await_service(ROUTES[dead]);
        }
        let begun = Instant::now();
        dead = Some(shop.visit(kind, death));
        println!("{} {death:?}: all there, visit of {:?}", kind.word(), begun.elapsed());
    }
    println!("{} screenshots in {}", shop.pictures_count, shop.pictures.display());
}

/// Why httpd-http.conf has the line that is taken out here; when this fails, it needs it no more.
#[test]
fn on_a_used_connection_httpd_makes_a_browser_send_a_post_again() {
    if !is_full() {
        println!("skipped: it is part of RINGTRIBE_BROWSER=full");
        return;
    }
    if !webdriver::is_installed() || !Kind::HttpdHttp.is_installed() {
        return;
    }
    let mut shop = Shop::open(&[Kind::HttpdHttp], |text| {
        assert_eq!(text.matches("\nKeepAlive Off\n").count(), 1, "{text}");
        text.replace("\nKeepAlive Off\n", "\n")
    });
    shop.ask_for_login(Kind::HttpdHttp);
    shop.give_password(PASSWORD);
    shop.put("apples");
    let dead = shop.node();
    let log = shop.pair.directory().join("httpd-http/error.log");
    let [tomcat, other] = [dead, 1 - dead].map(|node| shop.pair.take(node));
    let item = "held-after-copying";
    shop.chromium.type_into("[name=item]", item).expect("a field");
    let killer = std::thread::spawn(move || {
        assert_eq!(tomcat.await_line("HELD ", PATIENCE.within).as_deref(), Ok(item));
        tomcat.kill().expect("it runs");
        // Where it goes is chance: to what the system keeps of the dead node, or to the other one.
        PATIENCE.until("the POST is sent again", || {
            clients_that_failed(&log).len() > 1 || other.await_line("HELD ", PATIENCE.pause).is_ok()
        });
        other.kill().expect("it runs");
    });
    shop.chromium.click("#go").expect("a page");
    killer.join().expect("one click, and httpd had the POST twice");
}

/// The connections of browsers whose requests failed, as httpd names them.
fn clients_that_failed(log: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(log).expect("httpd's log");
    let name = |line: &str| Some(line.split_once("[client ")?.1.split_once(']')?.0.to_owned());
    text.lines().filter_map(name).collect()
}

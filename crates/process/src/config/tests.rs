use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Config {
    listen: std::net::SocketAddr,
    advertise: Vec<IpAddr>,
    media: Media,
    services: Vec<Service>,
    admin_token: Option<String>,
    extra: BTreeMap<String, String>,
    club: Option<Club>,
}

/// Somebody may be in none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Club {
    name: Option<String>,
    members: Vec<IpAddr>,
    dues: Dues,
    house: Option<House>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Dues {
    per_year: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct House {
    rooms: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Media {
    udp: u16,
    #[serde(with = "duration")]
    max_wait: Duration,
    limit: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Service {
    name: String,
    limit: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".parse().unwrap(),
            advertise: Vec::new(),
            media: Media { udp: 5000, max_wait: Duration::from_secs(30), limit: None },
            services: vec![Service { name: "echo".into(), limit: None }],
            admin_token: None,
            extra: BTreeMap::new(),
            club: None,
        }
    }
}

fn layers() -> Layers {
    let layers = Layers::new("SF").secret("adminToken").alias("OTHER_UDP", "media.udp");
    layers.section::<Club>("club").section::<House>("club.house")
}

fn vars(vars: &[(&str, &str)]) -> Vec<(String, String)> {
    vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn good(layers: Layers) -> Config {
    let loaded = layers.load::<Config>();
    assert_eq!(loaded.mistakes, Mistakes::new());
    loaded.config
}

fn bad(layers: Layers, expected: &str) {
    assert_eq!(layers.load::<Config>().mistakes.to_string(), expected);
}

#[test]
fn nothing_given_means_the_defaults() {
    assert_eq!(good(layers()), Config::default());
    assert_eq!(good(layers().yaml("f", "")), Config::default());
    assert_eq!(good(layers().yaml("f", "# only a remark\n")), Config::default());
    assert_eq!(good(layers().yaml("f", "media:\n")), Config::default());
}

#[test]
fn a_later_layer_wins_leaf_by_leaf() {
    let file = "media: { udp: 1, maxWait: 1m }\nadminToken: from-file\n";
    let config = good(
        layers()
            .flag("--udp", "media.udp", Some("3"))
            .flag("--listen", "listen", None::<String>)
            .environment(vars(&[("SF_MEDIA_UDP", "2"), ("SF_ADMIN_TOKEN", "123"), ("OTHER_UDP", "4")]))
            .yaml("f", file),
    );
    assert_eq!(config.media, Media { udp: 3, max_wait: Duration::from_secs(60), limit: None });
    assert_eq!(config.admin_token.as_deref(), Some("123"), "digits stay a text where a text is wanted");
}

#[test]
fn texts_take_the_type_that_fits() {
    let check = |name: &str, text: &str, expected: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        expected(&mut config);
        assert_eq!(good(layers().environment(vars(&[(name, text)]))), config, "{name}={text}");
    };
    check("SF_MEDIA_UDP", "9", &|c| c.media.udp = 9);
    check("OTHER_UDP", "9", &|c| c.media.udp = 9);
    check("SF_MEDIA_MAX_WAIT", "5s", &|c| c.media.max_wait = Duration::from_secs(5));
    check("SF_MEDIA_LIMIT", "7", &|c| c.media.limit = NonZeroU32::new(7));
    check("SF_MEDIA_LIMIT", "", &|_| {});
    check("SF_ADVERTISE", "::1, 10.0.0.1", &|c| {
        c.advertise = vec!["::1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    });
    check("SF_ADVERTISE", "[\"::1\"]", &|c| c.advertise = vec!["::1".parse().unwrap()]);
    check("SF_ADVERTISE", "::1", &|c| c.advertise = vec!["::1".parse().unwrap()]);
    check("SF_SERVICES", "[{\"name\":\"tone\"}]", &|c| c.services = vec![Service { name: "tone".into(), limit: None }]);
    check("SF_EXTRA", "{\"a\":\"b\"}", &|c| {
        c.extra.insert("a".into(), "b".into());
    });
}

#[test]
fn a_section_is_there_when_anything_is_said_of_it() {
    let check = |file: &str, given: &[(&str, &str)], expected: Option<Club>| {
        assert_eq!(good(layers().yaml("f", file).environment(vars(given))).club, expected, "{file} {given:?}");
    };
    let named = || Club { name: Some("chess".into()), ..Club::default() };
    check("", &[], None);
    check("", &[("SF_CLUB_NAME", ""), ("SF_CLUB_DUES_PER_YEAR", ""), ("SF_CLUB", "")], None);
    check("", &[("SF_CLUB_NAME", "chess")], Some(named()));
    check("", &[("SF_CLUB_DUES_PER_YEAR", "9")], Some(Club { dues: Dues { per_year: 9 }, ..Club::default() }));
    let members: Vec<IpAddr> = vec!["::1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    check("", &[("SF_CLUB_MEMBERS", "::1, 10.0.0.1")], Some(Club { members, ..Club::default() }));
    let housed = Club { house: Some(House { rooms: NonZeroU32::new(7) }), ..Club::default() };
    check("", &[("SF_CLUB_HOUSE_ROOMS", "7")], Some(housed.clone()));
    check("", &[("SF_CLUB_HOUSE", "{}")], Some(Club { house: Some(House::default()), ..Club::default() }));
    check("", &[("SF_CLUB", "{}")], Some(Club::default()));
    // Key by key, whichever layer says it.
    check("club: { name: chess }", &[("SF_CLUB_HOUSE_ROOMS", "7")], Some(Club { house: housed.house, ..named() }));
    check("club: { name: go }", &[("SF_CLUB_NAME", "chess")], Some(named()));
    check("", &[("SF_CLUB", "{\"name\":\"go\"}"), ("SF_CLUB_NAME", "chess")], Some(named()));
    check("club: {}", &[("SF_CLUB_NAME", "")], Some(Club::default()));
    let flagged = layers().flag("--club", "club.name", Some("chess"));
    assert_eq!(good(flagged).club, Some(named()));
}

#[test]
fn what_is_wrong_in_a_section_is_told() {
    bad(
        layers().yaml("f", "club: { dues: { perYear: x } }").environment(vars(&[
            ("SF_CLUB_HOUSE_ROOMS", "0"),
            ("SF_CLUB_MEMBERS", "::1,y"),
            ("SF_CLUB_HOUSE_FLOORS", "2"),
        ])),
        "club.dues.perYear: invalid type: string \"x\", expected u32 (in f)\n\
         club.house.rooms: invalid value: integer `0`, expected a nonzero u32 (from SF_CLUB_HOUSE_ROOMS)\n\
         club.members[1]: invalid IP address syntax (from SF_CLUB_MEMBERS)",
    );
    let loaded = layers().environment(vars(&[("SF_CLUB_HOUSE_FLOORS", "2")])).load::<Config>();
    assert_eq!((loaded.config.club, loaded.unknown_variables), (None, vec!["SF_CLUB_HOUSE_FLOORS".to_owned()]));
}

#[test]
fn repeated_flags_make_a_list() {
    let config = good(layers().flags("--advertise", "advertise", ["::1".to_owned(), "10.0.0.1".to_owned()]));
    assert_eq!(config.advertise.len(), 2);
    assert_eq!(good(layers().flags("--advertise", "advertise", [])).advertise.len(), 0);
}

#[test]
fn every_mistake_is_reported_with_its_key_and_origin() {
    let file = "
media: { udp: 70000, maxWait: 30, tcp: 1 }
services: [{ name: 5 }, { name: ok }, { nmae: x, limit: -1 }, 7]
listen: nowhere
";
    bad(
        layers().yaml("f.yaml", file).environment(vars(&[("SF_MEDIA_LIMIT", "0")])).flags(
            "--advertise",
            "advertise",
            ["10.0.0.1".to_owned(), "x".to_owned()],
        ),
        "advertise[1]: invalid IP address syntax (from --advertise)\n\
         listen: invalid socket address syntax (in f.yaml)\n\
         media.limit: invalid value: integer `0`, expected a nonzero u32 (from SF_MEDIA_LIMIT)\n\
         media.maxWait: invalid type: integer `30`, expected a string (in f.yaml)\n\
         media.tcp: unknown field `tcp`, expected one of `udp`, `maxWait`, `limit` (in f.yaml)\n\
         media.udp: invalid value: integer `70000`, expected u16 (in f.yaml)\n\
         services[0].name: invalid type: integer `5`, expected a string (in f.yaml)\n\
         services[2].limit: invalid value: integer `-1`, expected u32 (in f.yaml)\n\
         services[2].nmae: unknown field `nmae`, expected `name` or `limit` (in f.yaml)\n\
         services[3]: invalid type: integer `7`, expected struct Service (in f.yaml)",
    );
}

#[test]
fn a_wrong_value_leaves_the_rest_in_place() {
    let loaded = layers().yaml("f", "media: { udp: x, maxWait: 9s }").load::<Config>();
    assert_eq!(loaded.config.media, Media { udp: 5000, max_wait: Duration::from_secs(9), limit: None });
    assert_eq!(loaded.mistakes.iter().count(), 1);
}

#[test]
fn texts_that_fit_nowhere_name_the_nearest_type() {
    let check = |name: &str, text: &str, expected: &str| bad(layers().environment(vars(&[(name, text)])), expected);
    check("SF_MEDIA_UDP", "x", "media.udp: invalid type: string \"x\", expected u16 (from SF_MEDIA_UDP)");
    check("SF_MEDIA_UDP", "-1", "media.udp: invalid value: integer `-1`, expected u16 (from SF_MEDIA_UDP)");
    check("SF_ADVERTISE", "::1,y", "advertise[1]: invalid IP address syntax (from SF_ADVERTISE)");
    check(
        "SF_MEDIA_MAX_WAIT",
        "soon",
        "media.maxWait: \"soon\" is not a duration such as \"30s\", \"1m30s\" or \"500ms\" (from SF_MEDIA_MAX_WAIT)",
    );
}

#[test]
fn what_a_plan_finds_is_told_with_what_the_layers_found() {
    let check = |yaml: &str, found: &[(&str, &str)], expected: &[&str]| {
        let built = layers().yaml("f", yaml).load::<Config>().build(|_| {
            let mut mistakes = Mistakes::new();
            found.iter().for_each(|(key, message)| mistakes.push(*key, *message));
            mistakes.or(())
        });
        let told: Vec<String> = built.err().iter().flat_map(|m| m.iter().map(ToString::to_string)).collect();
        let short: Vec<&str> = told.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(short, expected, "{told:?}");
    };
    check("media: { udp: 1 }", &[], &[]);
    check("media: { udp: 1 }", &[("services[0].handler", "unknown")], &["services[0].handler"]);
    check("media: { udp: x }", &[], &["media.udp"]);
    check("media: { udp: x }", &[("services[0].handler", "unknown")], &["media.udp", "services[0].handler"]);
    // Its default is nothing that the operator has written.
    check(
        "media: { udp: x }",
        &[("media.udp", "low"), ("media", "odd"), ("media.ud", "b")],
        &["media.udp", "media.ud"],
    );
    check("services: 7", &[("services[0].name", "missing"), ("servicesX", "b")], &["services", "servicesX"]);
    check("- a", &[("services[0].name", "missing")], &["the file must hold a mapping of keys to values (in f)"]);
}

#[test]
fn files_that_are_no_configuration() {
    bad(layers().yaml("f", "- a\n- b\n"), "the file must hold a mapping of keys to values (in f)");
    bad(layers().yaml("f", "just words"), "the file must hold a mapping of keys to values (in f)");
    let twice = layers().yaml("f", "listen: 1\nlisten: 2\n").load::<Config>();
    assert!(twice.mistakes.to_string().starts_with("not valid YAML: "), "{}", twice.mistakes);
    let torn = layers().yaml("f", "media: {\n").load::<Config>();
    assert!(torn.mistakes.to_string().starts_with("not valid YAML: "), "{}", torn.mistakes);
    let gone = layers().file(Path::new("/nonexistent/f.yaml")).load::<Config>();
    assert!(gone.mistakes.to_string().starts_with("cannot read the file: "), "{}", gone.mistakes);
}

#[test]
fn secrets_are_not_repeated() {
    bad(layers().yaml("f", "adminToken: [hunter2]"), "adminToken: the value does not fit (it is withheld here) (in f)");
}

#[test]
fn variables_of_kubernetes_services_do_no_harm() {
    let loaded = layers()
        .environment(vars(&[
            ("SF_ROUTER_PORT", "tcp://10.0.0.1:80"),
            ("SF_MEDIA_UDP", "1"),
            ("OTHER_UDP", "1"),
            ("PATH", "/"),
        ]))
        .load::<Config>();
    assert!(loaded.mistakes.is_empty());
    assert_eq!(loaded.unknown_variables, ["SF_ROUTER_PORT"]);
}

#[test]
fn variables_are_named_after_their_keys() {
    let names: Vec<String> =
        layers().variables::<Config>().into_iter().map(|(name, key)| format!("{name} {key}")).collect();
    assert_eq!(
        names,
        [
            "SF_ADMIN_TOKEN adminToken",
            "SF_ADVERTISE advertise",
            "SF_CLUB club",
            "SF_CLUB_DUES_PER_YEAR club.dues.perYear",
            "SF_CLUB_HOUSE club.house",
            "SF_CLUB_HOUSE_ROOMS club.house.rooms",
            "SF_CLUB_MEMBERS club.members",
            "SF_CLUB_NAME club.name",
            "SF_EXTRA extra",
            "SF_LISTEN listen",
            "SF_MEDIA_LIMIT media.limit",
            "SF_MEDIA_MAX_WAIT media.maxWait",
            "SF_MEDIA_UDP media.udp",
            "SF_SERVICES services",
        ]
    );
}

proptest! {
    /// Whatever a file or a variable holds, loading ends, with a configuration or with mistakes.
    #[test]
    fn no_input_panics(text in "\\PC{0,60}|([a-zA-Z]{1,9}: ?[\\PC]{0,12}\n){0,6}", var in "\\PC{0,30}") {
        let loaded = layers()
            .yaml("f", text)
            .environment([("SF_ADVERTISE".to_owned(), var.clone()), ("SF_MEDIA_UDP".to_owned(), var)])
            .load::<Config>();
        prop_assert!(loaded.mistakes.iter().count() <= MAX_MISTAKES + 1);
    }
}

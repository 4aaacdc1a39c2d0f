//! Rules as people write them: the shipped ones, their tests, every kind of mistake, what is said.
#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

use std::path::PathBuf;

use integrators::rules::{Becomes, Code, Kind, Loaded, Rules, TestInput, check, print, try_input};
use integrators::snmp::DIALECT as SNMP;

const HEAD: &str = "format = 1\nkind = \"snmp\"\n";

fn load(text: &str) -> Loaded {
    Loaded::from_texts(Kind::Snmp, vec![("mine.toml".to_owned(), text.to_owned())])
}

fn trap(oid: &str, vars: &[[&str; 3]]) -> TestInput {
    let vars = vars.iter().map(|var| var.map(str::to_owned)).collect();
    TestInput::Trap { trap: oid.to_owned(), vars, agent: None, version: None }
}

/// Code, line and column of every problem of a file.
fn problems(text: &str) -> Vec<(&'static str, usize, usize)> {
    let checked = check(&load(text), SNMP.facts_of);
    checked.problems.iter().map(|p| (p.code.name(), p.place.line, p.place.column)).collect()
}

// IPC-9
#[test]
fn shipped_snmp_rules_pass_their_own_tests() {
    let checked = check(&Loaded::from_texts(Kind::Snmp, Vec::new()), SNMP.facts_of);
    assert_eq!(checked.to_text(), "13 rules, 7 tests, 0 failed\n");
}

#[test]
fn shipped_syslog_rules_load() {
    let rules = Rules::shipped(Kind::Syslog).unwrap();
    assert_eq!(rules.iter().count(), 15);
}

/// A file, and the code, line and column of each mistake in it.
type Cases = Vec<(String, Vec<(&'static str, usize, usize)>)>;

fn assert_told(cases: Cases) {
    for (text, expected) in cases {
        let mut found = problems(&text);
        found.sort_by_key(|(_, line, column)| (*line, *column));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn each_mistake_in_a_file_is_told_with_its_place() {
    let test = |body: &str| format!("{HEAD}[[test]]\n{body}\n");
    assert_told(vec![
        ("kind = \"snmp\"\n".into(), vec![("bad_value", 1, 1)]),
        ("format = 2\nkind = \"snmp\"\n".into(), vec![("bad_value", 1, 10)]),
        ("format = 1\n".into(), vec![("bad_value", 1, 1)]),
        ("format = 1\nkind = \"syslog\"\n".into(), vec![("bad_value", 2, 8)]),
        (format!("{HEAD}a = \n"), vec![("bad_value", 3, 5)]),
        (format!("{HEAD}kind = \"snmp\"\n"), vec![("duplicate", 3, 1)]),
        (format!("{HEAD}more = 1\n"), vec![("unknown_field", 3, 1)]),
        (
            format!("{HEAD}[names]\ntrap = \"1.3\"\nx = \"ifDescr\"\n"),
            vec![("bad_value", 4, 1), ("bad_value", 5, 5)],
        ),
        (format!("{HEAD}[tables.t]\na = true\n"), vec![("bad_value", 4, 5)]),
        (
            test("gives = { rule = \"any\", colour = 1 }"),
            vec![("bad_value", 3, 1), ("unknown_field", 4, 25)],
        ),
        (test("trap = \"1.3.6.1.6.3.1.1.5.1\"\ngives = { rule = \"any\" }"), vec![("test", 3, 1)]),
        (test("trap = \"x\""), vec![("test", 3, 1)]),
        (test("trap = \"1.3\"\nagent = \"here\""), vec![("bad_value", 5, 9)]),
        (test("trap = \"1.3\"\nvars = [[\"1.3\", \"i\"]]"), vec![("bad_value", 5, 9)]),
    ]);
}

#[test]
fn each_mistake_in_a_rule_is_told_with_its_place() {
    let rule = |body: &str| format!("{HEAD}[[rule]]\n{body}\n");
    let event = |line: &str| rule(&format!("id = \"a\"\nbecomes = \"event\"\n{line}"));
    let twice = event("match = { trap = \"1.1\" }\n[[rule]]\nid = \"a\"\nbecomes = \"event\"");
    let one = |code, line, column| vec![(code, line, column)];
    assert_told(vec![
        (rule("id = \"a\""), one("bad_value", 3, 1)),
        (rule("id = \"A b\"\nbecomes = \"event\""), one("bad_value", 4, 6)),
        (rule("becomes = \"event\""), one("bad_value", 3, 1)),
        (rule("id = \"a\"\nbecomes = \"alert\""), one("bad_value", 5, 11)),
        (rule("id = \"a\"\nbecomes = \"clear\""), one("bad_value", 3, 1)),
        (rule("id = \"a\"\nbecomes = \"clear\"\nclears = [\"b\"]"), one("unresolved", 6, 11)),
        (event("severty = \"major\""), one("unknown_field", 6, 1)),
        (event("severity = \"bad\""), one("bad_value", 6, 12)),
        (event("severity = \"{trap:x|'bad'}\""), one("bad_value", 6, 12)),
        (event("match = { app = \"x\" }"), one("unknown_field", 6, 11)),
        (event("match = { trap = \"x\" }"), one("bad_value", 6, 18)),
        (
            event("match = { trap = [\"1.3\", \"1.3.a\", \"*.3\"] }"),
            vec![("bad_value", 6, 26), ("bad_value", 6, 35)],
        ),
        (event("match = { source = \"10.0.0.0/33\" }"), one("bad_value", 6, 20)),
        (event("match = { version = 2 }"), one("bad_value", 6, 21)),
        (event("where = { trap = '(' }"), one("bad_value", 6, 18)),
        (event("where = { trop = '1' }"), one("unresolved", 6, 11)),
        (event("key = \"{\""), one("bad_value", 6, 7)),
        (event("key = \"{nix}{trap:nix}\""), vec![("unresolved", 6, 7), ("unresolved", 6, 7)]),
        (event("close_after_s = -1"), one("bad_value", 6, 17)),
        (event("ttl_s = \"1\""), one("bad_value", 6, 9)),
        (event("precedence = \"fast\""), one("bad_value", 6, 14)),
        (event("off = 1"), one("bad_value", 6, 7)),
        (twice, one("duplicate", 8, 6)),
    ]);
}

#[test]
fn all_mistakes_of_all_files_are_told_at_once() {
    let texts = vec![
        ("a.toml".to_owned(), format!("{HEAD}nix = 1\n[[rule]]\nid = \"a\"\n")),
        ("b.toml".to_owned(), "nonsense".to_owned()),
        (
            "c.toml".to_owned(),
            format!("{HEAD}[[rule]]\nid = \"c\"\nbecomes = \"event\"\nkey = \"{{nix}}\"\n"),
        ),
    ];
    let found = Rules::from_texts(Kind::Snmp, texts).unwrap_err();
    let codes: Vec<_> = found.iter().map(|p| (p.place.file.as_str(), p.code)).collect();
    assert_eq!(
        codes,
        [
            ("a.toml", Code::UnknownField),
            ("a.toml", Code::BadValue),
            ("b.toml", Code::BadValue),
            ("c.toml", Code::Unresolved),
        ]
    );
}

#[test]
fn rule_behind_one_that_takes_all_of_it_is_told() {
    let two = |first: &str, second: &str| {
        format!(
            "{HEAD}[[rule]]\nid = \"one\"\nbecomes = \"event\"\n{first}\n\
             [[rule]]\nid = \"two\"\nbecomes = \"event\"\n{second}\n"
        )
    };
    let trap = |pattern: &str| format!("match = {{ trap = {pattern} }}");
    let unreachable = [
        ("", trap("\"1.2.3\"")),
        ("match = {}", String::new()),
        ("match = { trap = \"*\" }", String::new()),
        ("match = { trap = \"1.2.*\" }", trap("[\"1.2.3\", \"1.2.3.*\"]")),
        (
            "match = { source = \"10.0.0.0/8\" }",
            "match = { source = \"10.1.0.0/16\", trap = \"1.2\" }".into(),
        ),
        ("match = { version = [\"1\", \"2c\"] }", "match = { version = \"1\" }".into()),
        ("where = { agent = 'x' }", "where = { agent = 'x', trap = 'y' }".into()),
    ];
    for (first, second) in unreachable {
        let checked = check(&load(&two(first, &second)), SNMP.facts_of);
        let told: Vec<_> = checked.problems.iter().map(|p| (p.code, p.place.line)).collect();
        assert_eq!(told, [(Code::Unreachable, 7)], "{first} / {second}");
        assert!(checked.problems[0].help.as_deref().unwrap().contains("mine.toml:3:1"));
    }
    let reachable = [
        (trap("\"1.2.3\""), trap("\"1.2.4\"")),
        (trap("\"1.2.*\""), trap("\"1.2\"")),
        (trap("\"1.2.3\""), trap("\"1.2.*\"")),
        ("where = { agent = 'x' }".into(), String::new()),
        ("match = { version = \"1\" }".into(), trap("\"1.2\"")),
    ];
    for (first, second) in reachable {
        assert!(load(&two(&first, &second)).into_result().is_ok(), "{first} / {second}");
    }
}

// IPC-9
#[test]
fn rule_of_a_site_comes_before_the_shipped_ones_and_replaces_them_by_id() {
    let text = format!(
        "{HEAD}[names]\nlamp = \"1.3.9\"\n[tables.ifStatus]\n2 = \"dead\"\n\
         [[rule]]\nid = \"if/up\"\noff = true\n\
         [[rule]]\nid = \"any\"\nmatch = {{ trap = \"1.9.*\" }}\nbecomes = \"data\"\n"
    );
    let rules = load(&text).into_result().unwrap();
    let ids: Vec<_> = rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids[0], "any");
    assert_eq!(ids.len(), 12, "if/up and the shipped any are gone: {ids:?}");
    let facts = (SNMP.facts_of)(&trap("1.9.7", &[])).unwrap();
    let judged = rules.judge(facts.as_ref()).unwrap();
    assert_eq!((judged.class.as_str(), judged.subclass.as_str()), ("snmp", "1.9.7"));
    let down = trap(
        "1.3.6.1.6.3.1.1.5.3",
        &[["1.3.6.1.2.1.2.2.1.1.7", "i", "7"], ["1.3.6.1.2.1.2.2.1.8.7", "i", "2"]],
    );
    let facts = (SNMP.facts_of)(&down).unwrap();
    assert_eq!(rules.judge(facts.as_ref()).unwrap().text, "interface 7 is dead");
    let facts = (SNMP.facts_of)(&trap("1.3.6.1.6.3.1.1.5.4", &[])).unwrap();
    assert!(rules.judge(facts.as_ref()).is_none());
}

#[test]
fn shipped_test_that_a_site_decides_otherwise_is_a_note_and_no_mistake() {
    let text = format!("{HEAD}[[rule]]\nid = \"any\"\noff = true\n");
    let checked = check(&load(&text), SNMP.facts_of);
    assert_eq!((checked.failed, checked.problems.len(), checked.notes.len()), (0, 0, 1));
}

#[test]
fn failed_test_says_what_fired_and_what_was_empty() {
    let text = format!(
        "{HEAD}[[rule]]\nid = \"fan\"\nmatch = {{ trap = \"1.9.1\" }}\nbecomes = \"alarm\"\n\
         text = \"fan {{ifDescr}} stands\"\n\
         [[test]]\ntrap = \"1.9.1\"\ngives = {{ text = \"fan 3 stands\" }}\n"
    );
    let checked = check(&load(&text), SNMP.facts_of);
    let told = "mine.toml:8:1: error[test]: text is \"fan  stands\", expected \"fan 3 stands\"\n  \
                help: rule fan (mine.toml:3:1) fired; ifDescr was empty\n\
                14 rules, 8 tests, 1 failed\n";
    assert_eq!(checked.to_text(), told);
    let json = checked.to_json();
    assert_eq!(json["problems"][0]["code"], "test");
    assert_eq!(json["problems"][0]["file"], "mine.toml");
    assert_eq!(json["problems"][0]["line"], 8);
    assert_eq!(json["failed"], 1);
}

#[test]
fn judgement_has_the_defaults_of_the_format() {
    let text = format!(
        "{HEAD}[[rule]]\nid = \"a\"\nbecomes = \"alarm\"\n\
         match = {{ trap = [\"1.9.1\", \"1.9.0.1\"] }}\n\
         [[rule]]\nid = \"b\"\nbecomes = \"alarm\"\nseverity = \"fatal\"\n\
         match = {{ trap = \"1.8.*\" }}\n\
         [[rule]]\nid = \"c\"\nbecomes = \"event\"\nmatch = {{ trap = \"1.7\" }}\n\
         clears = [\"a\", \"b\"]\nkey = \"k\"\nevent_id = \"{{uptime}}\"\n\
         precedence = \"bulk\"\npersistence = \"assured\"\nttl_s = 60\n"
    );
    let rules = load(&text).into_result().unwrap();
    let judge = |oid: &str| (SNMP.facts_of)(&trap(oid, &[["1.3", "i", "7"]])).unwrap();
    let facts = judge("1.9.0.1");
    let a = rules.judge(facts.as_ref()).unwrap();
    let fields = ["type", "key", "severity", "text", "instance", "precedence", "persistence"];
    let values = fields.map(|field| a.field(field).unwrap().into_owned());
    assert_eq!(values, ["1.9.1", "", "warning", "1.9.0.1: 1.3=7", "127.0.0.1", "normal", "normal"]);
    let facts = judge("1.8.5.1");
    let b = rules.judge(facts.as_ref()).unwrap();
    assert_eq!((b.type_.as_str(), b.precedence.word()), ("1.8.5.1", "urgent"));
    let facts = judge("1.7");
    let c = rules.judge(facts.as_ref()).unwrap();
    assert_eq!(c.becomes, Becomes::Event);
    assert_eq!(c.closes, ["1.9.1", "1.7"], "the type of b is whatever was received");
    assert_eq!(c.event_id.as_deref(), Some("0"));
    assert_eq!((c.precedence.word(), c.persistence.word(), c.ttl_s), ("bulk", "assured", Some(60)));
    assert_eq!(c.type_, "1.7");
}

#[test]
fn try_says_which_rule_fires_in_one_line_and_in_json() {
    let rules = Rules::shipped(Kind::Snmp).unwrap();
    let input = trap("1.3.6.1.6.3.1.1.5.3", &[["1.3.6.1.2.1.2.2.1.1.7", "i", "7"]]);
    let facts = (SNMP.facts_of)(&input).unwrap();
    let (line, json) = try_input(&rules, facts.as_ref()).unwrap();
    assert_eq!(
        line,
        "if/down  alarm  127.0.0.1  1.3.6.1.6.3.1.1.5.3  7  major  interface 7 is down"
    );
    assert_eq!(json["rule"], "if/down");
    assert_eq!(json["class"], serde_json::Value::Null);
    let (text, json) = print(&rules);
    assert_eq!(text.lines().count(), 13);
    assert!(text.starts_with("snmpv2/cold-start "), "{text}");
    assert!(text.lines().next().unwrap().ends_with("shipped/snmp.toml:70:1"), "{text}");
    assert_eq!(json[3]["match"]["trap"][0], "1.3.6.1.6.3.1.1.5.3");
}

#[test]
fn folder_is_read_by_name_and_a_missing_file_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    for (file, id) in [("b.toml", "b"), ("a.toml", "a"), ("c.txt", "c")] {
        let rule = format!(
            "{HEAD}[[rule]]\nid = \"{id}\"\nbecomes = \"event\"\n\
             match = {{ version = \"1\" }}\nwhere = {{ agent = '{id}' }}\n"
        );
        std::fs::write(folder.path().join(file), rule).unwrap();
    }
    let rules = Rules::load(Kind::Snmp, &[folder.path().to_owned()]).unwrap();
    let ids: Vec<_> = rules.iter().take(2).map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    let missing = Rules::load(Kind::Snmp, &[PathBuf::from("nowhere/x.toml")]).unwrap_err();
    let told = missing[0].to_string();
    assert!(told.starts_with("nowhere/x.toml:1:1: error[bad_value]: cannot be read"), "{told}");
}

#[test]
fn reload_keeps_the_old_rules_when_one_file_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let rule = |id: &str| {
        format!(
            "{HEAD}[[rule]]\nid = \"{id}\"\nmatch = {{ trap = \"1.9\" }}\nbecomes = \"event\"\n"
        )
    };
    let first =
        |live: &integrators::common::LiveRules| live.current().iter().next().unwrap().id.clone();
    std::fs::write(&file, rule("old")).unwrap();
    let live =
        integrators::common::LiveRules::load(Kind::Snmp, std::slice::from_ref(&file)).unwrap();
    assert_eq!(first(&live), "old");
    std::fs::write(&file, format!("{}nix = 1\n", rule("new"))).unwrap();
    assert!(live.reload().is_err());
    assert_eq!(first(&live), "old");
    std::fs::write(&file, rule("new")).unwrap();
    assert_eq!(live.reload(), Ok(14));
    assert_eq!(first(&live), "new");
}

// IPC-9
#[test]
fn example_of_the_format_says_what_it_shows() {
    let syslog = integrators::syslog::DIALECT;
    let text = "format = 1\nkind = \"syslog\"                     # the integrator it is for\n\n\
        [[rule]]\nid = \"raid/degraded\"                # lower case, unique\n\
        match = { app = \"mdadm\", text = 'Degraded.* (?P<array>/dev/md\\d+)' }\n\
        becomes = \"alarm\"\nkey = \"{array}\"\nseverity = \"major\"\n\
        text = \"{array} is degraded on {host}\"\n\n\
        # A line of mdadm without a host: the sender's address stands in\n# for the instance, \
        but not for the host.\n\n\n\
        [[test]]\nline = '<25>1 - - mdadm - - - DegradedArray event on /dev/md0'\n\
        gives = { rule = \"raid/degraded\", text = \"/dev/md0 is degraded on nas\" }\n";
    let loaded = Loaded::from_texts(Kind::Syslog, vec![("raid.toml".to_owned(), text.to_owned())]);
    let told = "raid.toml:16:1: error[test]: text is \"/dev/md0 is degraded on \", expected \
                \"/dev/md0 is degraded on nas\"\n  \
                help: rule raid/degraded (raid.toml:4:1) fired; host was empty\n\
                16 rules, 10 tests, 1 failed\n";
    assert_eq!(check(&loaded, syslog.facts_of).to_text(), told);
    let line = "<10>Nov 21 19:19:45 vm kernel: EDAC MC0: 1 CE on DIMM#1".to_owned();
    let input = (syslog.read_try)(&[line]).unwrap();
    let facts = (syslog.facts_of)(&input).unwrap();
    let (said, _) = try_input(&Rules::shipped(Kind::Syslog).unwrap(), facts.as_ref()).unwrap();
    assert_eq!(
        said,
        "kernel/memory-corrected  alarm  vm  syslog/kernel  MC0 DIMM#1 CE  warning  \
         1 corrected memory errors on DIMM#1"
    );
}

//! What is found in RFC 3164 lines and their relatives, vendor by vendor.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use super::*;

fn at(now: &str) -> Clock {
    Clock { now: now.parse().unwrap(), zone: TimeZone::UTC }
}

fn read(line: &str) -> Message {
    parse(line, &at("2026-11-23T00:00:00Z"))
}

/// Milliseconds of a time.
fn ms(time: &str) -> Option<i64> {
    Some(time.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

/// (host, app, pid, text) of a line.
fn fields(line: &str) -> (String, String, String, String) {
    let message = read(line);
    assert!(message.occurred_at_ms.is_some(), "no time in {line}");
    let word = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    (word(message.host), word(message.app), word(message.pid), word(message.text))
}

#[test]
fn time_host_tag_and_pid_are_found_wherever_vendors_put_them() {
    let of = |host: &str, app: &str, pid: &str, text: &str| {
        (host.to_string(), app.to_string(), pid.to_string(), text.to_string())
    };
    for (line, expected) in [
        ("Oct 11 22:14:15 mymachine su: failed", of("mymachine", "su", "-", "failed")),
        ("Nov  1 19:30:00 h haproxy[42]: x", of("h", "haproxy", "42", "x")),
        (" Nov 21 19:30:00 cron[4242]: (root)", of("-", "cron", "4242", "(root)")),
        ("Nov 21 19:30:00 h /usr/sbin/cron[1]: a", of("h", "/usr/sbin/cron", "1", "a")),
        ("Nov 21 19:30:00 2026 h authmgr[4]: <1> x", of("h", "authmgr", "4", "<1> x")),
        ("Nov 21 2026 19:30:00 h app: x", of("h", "app", "-", "x")),
        ("Nov 21 19:30:00 h : %ASA-3-1: x", of("h", "%ASA-3-1", "-", "x")),
        (":Nov 21 19:30:00 UTC: %ASA-6-3: x", of("-", "%ASA-6-3", "-", "x")),
        (" Nov 21 19:30:00: %ASA-4-4: x", of("-", "%ASA-4-4", "-", "x")),
        (": Nov 21 19:30:00 UTC : %UCSM-6: x", of("-", "%UCSM-6", "-", "x")),
        ("45: *Nov 21 19:30:00.123: %SYS-5: x", of("-", "%SYS-5", "-", "x")),
        ("Nov 21 19:30:00 192.168.12.1: %ACE-3: x", of("192.168.12.1", "%ACE-3", "-", "x")),
        ("2026-11-21T19:30:00.123456Z h usb[2]: x", of("h", "usb", "2", "x")),
        ("2026-11-21T19:30:00+00:00 h ucs : WARN : x", of("h", "ucs", "-", "WARN : x")),
        ("Nov 21 19:30:00 fe80::1 app: x", of("fe80::1", "app", "-", "x")),
        ("Nov 21 19:30:00 vm mdadm Degraded", of("vm", "mdadm", "-", "mdadm Degraded")),
        ("Nov 21 19:30:00 [h:kernel:error]: V", of("-", "-", "-", "[h:kernel:error]: V")),
        ("Nov 21 19:30:00 h -- MARK --", of("h", "-", "-", "-- MARK --")),
        ("Nov 21 19:30:00 h app: http://x", of("h", "app", "-", "http://x")),
        ("Nov 21 19:30:00 h", of("-", "-", "-", "h")),
        ("Nov 21 19:30:00", of("-", "-", "-", "-")),
    ] {
        assert_eq!(fields(line), expected, "{line}");
    }
}

#[test]
fn without_a_time_the_whole_is_text_but_for_a_tag() {
    let message = read("[Login Failed]: Authentication failed");
    assert_eq!((message.occurred_at_ms, message.app), (None, None));
    assert_eq!(message.text.as_deref(), Some("[Login Failed]: Authentication failed"));
    let message = read("su: failed");
    assert_eq!((message.host, message.app.as_deref()), (None, Some("su")));
    assert_eq!(message.text.as_deref(), Some("failed"));
    for line in ["Nov 32 19:30:00 h x", "Nov 21 25:30:00 h x", "Now 21 19:30:00 h x", "2 fast"] {
        let message = read(line);
        assert_eq!((message.occurred_at_ms, message.text.as_deref()), (None, Some(line)));
    }
}

#[test]
fn a_time_without_a_year_takes_the_nearest_one() {
    for (now, line, expected) in [
        ("2026-01-01T00:05:00Z", "Dec 31 23:59:00 h a: x", "2025-12-31T23:59:00Z"),
        ("2026-12-31T23:59:00Z", "Jan  1 00:01:00 h a: x", "2027-01-01T00:01:00Z"),
        ("2026-11-23T00:00:00Z", "Dec  2 16:31:03 h a: x", "2026-12-02T16:31:03Z"),
        ("2026-11-23T00:00:00Z", "Feb 29 12:00:00 h a: x", "2028-02-29T12:00:00Z"),
    ] {
        let found = parse(line, &at(now)).occurred_at_ms;
        assert_eq!(found, ms(expected), "{line} at {now}");
    }
}

#[test]
fn a_time_without_a_zone_is_in_the_hosts() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let clock = Clock { zone, ..at("2026-11-23T00:00:00Z") };
    for (line, expected) in [
        ("Nov 21 19:30:00 h a: x", "2026-11-21T18:30:00Z"),
        ("Jul 21 19:30:00 h a: x", "2026-07-21T17:30:00Z"),
        ("Nov 21 19:30:00 UTC: a: x", "2026-11-21T19:30:00Z"),
        ("Nov 21 19:30:00.25Z h a: x", "2026-11-21T19:30:00.250Z"),
        ("Nov 21 19:30:00 CET: a: x", "2026-11-21T18:30:00Z"),
        ("2026-11-21T19:30:00+05:30: a: x", "2026-11-21T14:00:00Z"),
    ] {
        let found = parse(line, &clock);
        assert_eq!(found.occurred_at_ms, ms(expected), "{line}");
        assert_eq!(found.app.as_deref(), Some("a"), "{line}");
    }
}

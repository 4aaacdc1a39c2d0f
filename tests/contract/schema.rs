//! A small validator of the schemas of openapi.json: required keys, types, values, no other keys
//! but those that were added to the contract since (contract §8).
use std::sync::LazyLock;

use serde_json::Value;

/// The contract's schemas with what was added to them: more keys, never others.
pub static OPENAPI: LazyLock<Value> = LazyLock::new(|| {
    let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    let mut contract = read(include_str!("../fixtures/openapi.json"));
    let additions = read(include_str!("../fixtures/openapi-additions.json"));
    for (name, added) in additions.as_object().expect("schemas by name") {
        let schema = &mut contract["components"]["schemas"][name];
        for (key, part) in added["properties"].as_object().expect("keys") {
            let known = schema["properties"].as_object_mut().expect("an object of the contract");
            assert!(known.insert(key.clone(), part.clone()).is_none(), "{name}.{key} is known");
        }
        let required = added["required"].as_array().expect("keys").clone();
        schema["required"].as_array_mut().expect("keys").extend(required);
    }
    contract
});

/// Panics with all that is wrong with `value` by that schema.
pub fn check(schema: &str, value: &Value) {
    let mut wrong = Vec::new();
    walk(&OPENAPI["components"]["schemas"][schema], value, schema, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}\nin {value:#}");
}

/// Checks a page of a list: `items` of that schema and `next`.
pub fn check_page(schema: &str, page: &Value) {
    let keys: Vec<&String> = page.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["items", "next"]);
    assert!(page["next"].is_null() || page["next"].is_string());
    check_all(schema, &page["items"]);
}

/// Checks each of an array.
pub fn check_all(schema: &str, list: &Value) {
    list.as_array().expect("an array").iter().for_each(|item| check(schema, item));
}

fn walk(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        return walk(OPENAPI.pointer(pointer).expect("a schema"), value, at, wrong);
    }
    assert!(schema.is_object(), "{at} is not in the contract");
    let mut no = |why: String| wrong.push(format!("{at}: {why}"));
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|kind| is(kind, value)) {
        return no(format!("{value} is none of {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        no(format!("{value} is not one of {allowed:?}"));
    }
    if let (Some(least), Some(figure)) = (schema["minimum"].as_f64(), value.as_f64())
        && figure < least
    {
        no(format!("{value} is below {least}"));
    }
    if let Some(text) = value.as_str() {
        let pattern = schema["pattern"].as_str();
        if let Some(why) = text_is_wrong(schema["format"].as_str(), pattern, text) {
            no(why);
        }
    }
    match value {
        Value::Object(_) => object(schema, value, at, wrong),
        Value::Array(items) if schema["items"].is_object() => {
            for (i, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{at}[{i}]"), wrong);
            }
        }
        _ => {}
    }
}

fn object(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(key).is_none() {
            wrong.push(format!("{at}: {key} is missing"));
        }
    }
    for (key, part) in value.as_object().into_iter().flatten() {
        let below = format!("{at}.{key}");
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) => wrong.push(format!("{below} is not in the contract")),
            (Value::Null, rest) => walk(rest, part, &below, wrong),
            (known, _) => walk(known, part, &below, wrong),
        }
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// Times are RFC 3339, UTC, milliseconds (contract §1), which is narrower than the schema.
fn text_is_wrong(format: Option<&str>, pattern: Option<&str>, text: &str) -> Option<String> {
    let wrong = match format {
        Some("date-time") => {
            let parsed: Result<jiff::Timestamp, _> = text.parse();
            text.len() != "2026-11-23T20:05:57.924Z".len()
                || !text.ends_with('Z')
                || parsed.is_err()
        }
        Some("uuid") => text.parse::<uuid::Uuid>().is_err(),
        _ => false,
    };
    if wrong {
        return Some(format!("{text:?} is no {}", format.unwrap_or_default()));
    }
    // The two patterns of the contract are those of ids.
    let well_formed = match pattern {
        Some(pattern) if pattern.contains("[unb]") => {
            text.parse::<integrator_api::MessageId>().is_ok()
        }
        Some(_) => text.parse::<integrator_api::RemoteId>().is_ok(),
        None => true,
    };
    (!well_formed).then(|| format!("{text:?} is no id"))
}

#[test]
fn the_validator_finds_what_is_wrong() {
    let good = serde_json::json!({
        "node": "proxy", "node_id": "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3", "roles": ["proxy"],
        "received_at": "2026-11-23T20:05:57.924Z", "sent_at": null
    });
    check("Hop", &good);
    for (key, value) in [
        ("node", Value::Null),
        ("node_id", "proxy".into()),
        ("roles", "proxy".into()),
        ("received_at", "2026-11-23T20:05:57Z".into()),
        ("more", 1.into()),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let mut wrong = Vec::new();
        walk(&OPENAPI["components"]["schemas"]["Hop"], &bad, "Hop", &mut wrong);
        assert_eq!(wrong.len(), 1, "{key}: {wrong:?}");
    }
}

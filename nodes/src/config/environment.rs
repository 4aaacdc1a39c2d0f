//! Values from outside: what `${NAME}` and `${NAME:-default}` stand for.

use std::collections::BTreeMap;

use super::suggest;

/// Longest value after all references are put in, in bytes: more is a mistake, not a setting.
pub const EXPANDED_BYTES_MAX: usize = 4_096;

/// What a file may read of the process that reads it, taken once so that checking stays pure.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    host_name: String,
    looked_up: bool,
}

impl Environment {
    /// Of this process and this host.
    pub fn of_process() -> Environment {
        let pairs = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Environment { variables: pairs, host_name: host, looked_up: true }
    }

    /// Of these variables, on a host of this name.
    pub fn of<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        host_name: &str,
    ) -> Environment {
        let variables =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let host_name = host_name.to_owned();
        Environment { variables: variables.collect(), host_name, looked_up: true }
    }

    /// References are taken as given and not looked up (`callhome check --no-environment`):
    /// for checking a file on another machine than its own.
    pub fn not_read() -> Environment {
        let host_name = "host".to_owned();
        Environment { variables: BTreeMap::new(), host_name, looked_up: false }
    }

    /// The value of one variable; an empty one counts as set.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// False: references stay as they are.
    pub(crate) fn is_looked_up(&self) -> bool {
        self.looked_up
    }

    /// The host's name in the form of a node's name: the first label in lower case, what may not
    /// stand in a name replaced by hyphens; `node` when nothing is left.
    pub fn node_name(&self) -> String {
        let label = self.host_name.split('.').next().unwrap_or_default();
        let letter = |c: char| {
            let c = c.to_ascii_lowercase();
            if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }
        };
        let name: String = label.chars().take(63).map(letter).collect();
        let name = name.trim_matches('-');
        if name.is_empty() { "node".to_owned() } else { name.to_owned() }
    }

    /// The set variable nearest to one that is not.
    pub(crate) fn near(&self, name: &str) -> Option<&str> {
        suggest::nearest(name, self.variables.keys().map(String::as_str))
    }
}

/// Why references could not be put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpandError {
    /// No such variable, and no default.
    Unset(String),
    /// `${` without `}`, or no name between them.
    Malformed,
    /// Longer than [`EXPANDED_BYTES_MAX`].
    TooLong,
}

/// A value with its references put in, or `None` when they are not to be looked up.
///
/// Defaults are taken as they stand; references do not nest.
pub(crate) fn expand(
    value: &str,
    environment: &Environment,
) -> Result<Option<String>, ExpandError> {
    let mut out = String::new();
    let mut rest = value;
    let mut left_as_is = false;
    while let Some(start) = rest.find("${") {
        let behind = &rest[start + 2..];
        let end = behind.find('}').ok_or(ExpandError::Malformed)?;
        let (name, default) = match behind[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&behind[..end], None),
        };
        if !is_variable_name(name) {
            return Err(ExpandError::Malformed);
        }
        out.push_str(&rest[..start]);
        // As in a shell: `:-` stands in for a variable that is unset or empty.
        let found = environment.variable(name).filter(|v| !v.is_empty() || default.is_none());
        match found.or(default) {
            Some(found) => out.push_str(found),
            None if environment.is_looked_up() => {
                return Err(ExpandError::Unset(name.to_owned()));
            }
            None => left_as_is = true,
        }
        if out.len() > EXPANDED_BYTES_MAX {
            return Err(ExpandError::TooLong);
        }
        rest = &behind[end + 1..];
    }
    out.push_str(rest);
    if out.len() > EXPANDED_BYTES_MAX {
        return Err(ExpandError::TooLong);
    }
    Ok((!left_as_is).then_some(out))
}

fn is_variable_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Environment {
        Environment::of([("HOME", "/home/x"), ("EMPTY", "")], "Berlin_1.example")
    }

    #[test]
    fn references_are_put_in_and_defaults_stand_in() {
        let expanded = expand("file:${HOME}/${NONE:-key}${EMPTY:-!}", &set());
        assert_eq!(expanded, Ok(Some("file:/home/x/key!".to_owned())));
        assert_eq!(expand("$HOME", &set()), Ok(Some("$HOME".to_owned())));
    }

    #[test]
    fn a_missing_variable_and_a_broken_reference_are_told() {
        assert_eq!(expand("${NONE}", &set()), Err(ExpandError::Unset("NONE".into())));
        assert_eq!(expand("${HOME", &set()), Err(ExpandError::Malformed));
        assert_eq!(expand("${1}", &set()), Err(ExpandError::Malformed));
    }

    #[test]
    fn without_an_environment_references_are_left_and_defaults_taken() {
        assert_eq!(expand("${NONE}", &Environment::not_read()), Ok(None));
        assert_eq!(expand("${NONE:-a}", &Environment::not_read()), Ok(Some("a".into())));
    }

    #[test]
    fn a_host_name_becomes_a_node_name() {
        assert_eq!(set().node_name(), "berlin-1");
        assert_eq!(Environment::of([], "--.x").node_name(), "node");
    }
}

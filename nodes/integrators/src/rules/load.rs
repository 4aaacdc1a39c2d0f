//! Finds the files of rules, merges them and checks the whole; all mistakes are told at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use protocol::message::Persistence;
use toml::Spanned;

use super::engine::{Rule, Rules, Test};
use super::file::{self, RawRule, RuleFile};
use super::problem::{Code, Problem, Source};
use super::template::{Choice, Template};
use super::{Becomes, Kind};

/// Where a site's own rules lie when `--rules` names none; a folder a kind.
pub const ETC_RULES: &str = "/etc/callhome/rules";

/// One rules file, bytes: a thousand rules; more is a mistake in the path.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What was loaded, and what is wrong with it. Rules with mistakes of their own are not in it.
#[derive(Debug)]
pub struct Loaded {
    /// What is good of it.
    pub rules: Rules,
    /// Every mistake.
    pub problems: Vec<Problem>,
    /// Ids of rules that were left out because something is wrong with them.
    pub(crate) broken: HashSet<String>,
}

struct Layer {
    source: Source,
    file: RuleFile,
    shipped: bool,
}

impl Rules {
    /// Loads the rules of `paths` in their order (a folder: its `*.toml` by name; no paths: those
    /// of [`ETC_RULES`]), then the shipped ones. Every mistake in any of them is in the error.
    pub fn load(kind: Kind, paths: &[PathBuf]) -> Result<Self, Vec<Problem>> {
        Loaded::from_paths(kind, paths).into_result()
    }

    /// As [`Rules::load`], from texts with their names: for tests and for what is not on disk.
    pub fn from_texts(kind: Kind, texts: Vec<(String, String)>) -> Result<Self, Vec<Problem>> {
        Loaded::from_texts(kind, texts).into_result()
    }

    /// The rules that come with the program. Their own test shows that they load.
    pub fn shipped(kind: Kind) -> Result<Self, Vec<Problem>> {
        Self::from_texts(kind, Vec::new())
    }
}

impl Loaded {
    /// Loads like [`Rules::load`], and keeps what is good when something is wrong.
    pub fn from_paths(kind: Kind, paths: &[PathBuf]) -> Self {
        let etc = Path::new(ETC_RULES).join(kind.name());
        let mut problems = Vec::new();
        let mut texts = Vec::new();
        let found = if paths.is_empty() && etc.is_dir() { vec![etc] } else { paths.to_vec() };
        for path in found.iter().flat_map(|path| files_of(path, &mut problems)).collect::<Vec<_>>()
        {
            match read_file(&path) {
                Ok(text) => texts.push((path.display().to_string(), text)),
                Err(why) => problems.push(unreadable(&path, &why)),
            }
        }
        let mut loaded = Self::from_texts(kind, texts);
        problems.append(&mut loaded.problems);
        loaded.problems = problems;
        loaded
    }

    /// Loads texts with their names, in their order, then the shipped rules.
    pub fn from_texts(kind: Kind, texts: Vec<(String, String)>) -> Self {
        let shipped = (format!("shipped/{}.toml", kind.name()), kind.shipped().to_owned());
        let texts = texts.into_iter().map(|text| (text, false)).chain([(shipped, true)]);
        let mut problems = Vec::new();
        let mut layers = Vec::new();
        for ((name, text), shipped) in texts {
            let source = Source::new(&name, text);
            let (file, mut found) = file::read(kind, &source);
            problems.append(&mut found);
            layers.push(Layer { source, file, shipped });
        }
        merge(kind, layers, problems)
    }

    /// The rules, if nothing at all is wrong.
    pub fn into_result(self) -> Result<Rules, Vec<Problem>> {
        if self.problems.is_empty() { Ok(self.rules) } else { Err(self.problems) }
    }
}

/// The files that a path stands for, in order.
fn files_of(path: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
            let mut files: Vec<_> =
                paths.filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
            files.sort();
            files
        }
        Err(error) => {
            problems.push(unreadable(path, &error.to_string()));
            Vec::new()
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    let size = std::fs::metadata(path).map_err(told)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes, at most {FILE_BYTES_MAX} are read"));
    }
    std::fs::read_to_string(path).map_err(told)
}

fn unreadable(path: &Path, why: &str) -> Problem {
    let source = Source::new(&path.display().to_string(), String::new());
    let help = "name a readable file of rules, or a folder of them".to_owned();
    source.problem(Code::BadValue, &(0..0), format!("cannot be read: {why}"), Some(help))
}

/// Puts the files together, the earlier first, and checks what only the whole can tell.
fn merge(kind: Kind, layers: Vec<Layer>, problems: Vec<Problem>) -> Loaded {
    let mut merge = Merge {
        rules: Rules {
            kind,
            rules: Vec::new(),
            by_id: HashMap::new(),
            names: BTreeMap::new(),
            tables: HashMap::new(),
            tests: Vec::new(),
        },
        problems,
        known: HashSet::new(),
        broken: HashSet::new(),
        pending: Vec::new(),
    };
    let sources: Vec<Source> =
        layers.into_iter().enumerate().map(|(number, layer)| merge.add(number, layer)).collect();
    merge.check_names(&sources);
    merge.check_clears(&sources);
    merge.check_reach();
    Loaded { rules: merge.rules, problems: merge.problems, broken: merge.broken }
}

struct Merge {
    rules: Rules,
    problems: Vec<Problem>,
    /// All ids that any file has, in force or not.
    known: HashSet<String>,
    broken: HashSet<String>,
    /// For each rule in force, what is still to be looked up in it.
    pending: Vec<Pending>,
}

struct Pending {
    /// Position of its file.
    layer: usize,
    uses: Vec<(Range<usize>, Choice)>,
    clears: Vec<Spanned<String>>,
}

impl Merge {
    fn add(&mut self, number: usize, layer: Layer) -> Source {
        let Layer { source, file, shipped } = layer;
        for (name, oid) in file.names {
            self.rules.names.entry(name.into_inner()).or_insert(oid);
        }
        for (table, key, value) in file.tables {
            self.rules.tables.entry(table).or_default().entry(key).or_insert(value);
        }
        let mut here: HashMap<String, Range<usize>> = HashMap::new();
        for raw in file.rules {
            let id = raw.id.get_ref().clone();
            if let Some(first) = here.get(&id) {
                let message = format!("rule id {id} is there twice");
                let help = format!("the first is at {}; ids are unique", source.place(first));
                let span = raw.id.span();
                self.problems.push(source.problem(Code::Duplicate, &span, message, Some(help)));
                continue;
            }
            here.insert(id.clone(), raw.id.span());
            if self.known.insert(id) && !raw.off {
                self.put_in_force(raw, number, shipped, &source);
            }
        }
        self.known.extend(file.broken.iter().cloned());
        self.broken.extend(file.broken);
        self.rules.tests.extend(file.tests.into_iter().map(|test| Test {
            place: source.place(&test.at),
            shipped,
            input: test.input,
            gives: test.gives,
        }));
        source
    }

    fn put_in_force(&mut self, raw: RawRule, layer: usize, shipped: bool, source: &Source) {
        let uses = uses_of(&raw);
        let rule = with_defaults(self.rules.kind, raw, shipped, source);
        self.pending.push(Pending { layer, uses, clears: rule.1 });
        self.rules.by_id.insert(rule.0.id.clone(), self.rules.rules.len());
        self.rules.rules.push(rule.0);
    }

    /// Every name and table that a rule uses must be defined somewhere.
    fn check_names(&mut self, sources: &[Source]) {
        for (rule, pending) in self.rules.rules.iter().zip(&self.pending) {
            let Some(source) = sources.get(pending.layer) else { continue };
            for (span, choice) in &pending.uses {
                let Choice::Name { name, table } = choice else { continue };
                if !self.rules.resolves(name, &rule.matcher) {
                    let message = format!("nothing is named {name}");
                    let help = help_for_name(self.rules.kind);
                    let problem = source.problem(Code::Unresolved, span, message, Some(help));
                    self.problems.push(problem);
                }
                let Some(table) = table else { continue };
                if !self.rules.tables.contains_key(table) {
                    let message = format!("there is no table {table}");
                    let help = Some(format!("define [tables.{table}]"));
                    self.problems.push(source.problem(Code::Unresolved, span, message, help));
                }
            }
        }
    }

    /// `clears` must name alarm rules. One that the site switched off or made something else of
    /// is left out where a shipped rule names it.
    fn check_clears(&mut self, sources: &[Source]) {
        let mut resolved = Vec::new();
        for (rule, pending) in self.rules.rules.iter().zip(&self.pending) {
            let mut clears = Vec::new();
            for id in &pending.clears {
                let target = self.rules.by_id.get(id.get_ref());
                let target = target.and_then(|at| self.rules.rules.get(*at));
                match target {
                    Some(alarm) if alarm.becomes == Becomes::Alarm => clears.push(alarm.id.clone()),
                    Some(_) if rule.shipped => {}
                    None if self.known.contains(id.get_ref()) => {}
                    _ => {
                        let Some(source) = sources.get(pending.layer) else { continue };
                        let message = format!("clears names {}, no alarm rule", id.get_ref());
                        let help = "name rules with becomes = \"alarm\"".to_owned();
                        let span = id.span();
                        let problem = source.problem(Code::Unresolved, &span, message, Some(help));
                        self.problems.push(problem);
                    }
                }
            }
            resolved.push(clears);
        }
        for (rule, clears) in self.rules.rules.iter_mut().zip(resolved) {
            rule.clears = clears;
        }
    }

    /// A rule after one that takes all it matches never fires. Shipped rules may be covered by a
    /// site's own: that is how these take over.
    fn check_reach(&mut self) {
        let rules = &self.rules.rules;
        for (at, rule) in rules.iter().enumerate() {
            let earlier = rules
                .iter()
                .take(at)
                .find(|earlier| (earlier.shipped || !rule.shipped) && covers(earlier, rule));
            let Some(earlier) = earlier else { continue };
            self.problems.push(Problem {
                code: Code::Unreachable,
                place: rule.place.clone(),
                message: format!("rule {} can never fire", rule.id),
                help: Some(format!(
                    "rule {} ({}) takes all that it matches: put it after this one",
                    earlier.id, earlier.place
                )),
            });
        }
    }
}

fn covers(earlier: &Rule, later: &Rule) -> bool {
    let demanded = |(name, regex): &(String, regex::Regex)| {
        later.wheres.iter().any(|(n, r)| n == name && r.as_str() == regex.as_str())
    };
    earlier.wheres.iter().all(demanded) && earlier.matcher.covers(&later.matcher)
}

fn help_for_name(kind: Kind) -> String {
    let more = match kind {
        Kind::Snmp => "or define it in [names]",
        Kind::Syslog => "sd.ID.PARAM, or a named group of match.text",
    };
    format!("known: {}, {more}", kind.own_names().join(" "))
}

/// All names and tables that a rule uses, with their places.
fn uses_of(raw: &RawRule) -> Vec<(Range<usize>, Choice)> {
    let t = &raw.templates;
    let templates =
        [&t.type_, &t.key, &t.severity, &t.text, &t.event_id, &t.class, &t.subclass, &t.instance];
    let from_templates = templates.into_iter().flatten().flat_map(|template| {
        let span = template.span();
        template.get_ref().choices().map(move |choice| (span.clone(), choice.clone()))
    });
    let from_wheres = raw
        .wheres
        .iter()
        .map(|(name, _)| (name.span(), Choice::Name { name: name.get_ref().clone(), table: None }));
    from_templates.chain(from_wheres).collect()
}

/// The rule with its defaults, and what it clears.
fn with_defaults(
    kind: Kind,
    raw: RawRule,
    shipped: bool,
    source: &Source,
) -> (Rule, Vec<Spanned<String>>) {
    let templates = raw.templates;
    let own_type = raw.matcher.default_type(kind);
    let or = |template: Option<Spanned<Template>>, default: &str| {
        template.map_or_else(|| Template::known(default), Spanned::into_inner)
    };
    let (text, subclass, instance) = match kind {
        Kind::Snmp => ("{trap}: {vars}", "{trap}", "{agent|source}"),
        Kind::Syslog => ("{text}", "{app}", "{host|source}"),
    };
    let rule = Rule {
        id: raw.id.into_inner(),
        place: source.place(&raw.at),
        shipped,
        becomes: raw.becomes,
        matcher: raw.matcher,
        wheres: raw.wheres.into_iter().map(|(name, r)| (name.into_inner(), r)).collect(),
        clears: Vec::new(),
        type_: or(templates.type_, &own_type),
        key: or(templates.key, ""),
        severity: or(templates.severity, "warning"),
        text: or(templates.text, text),
        event_id: templates.event_id.map(Spanned::into_inner),
        class: or(templates.class, kind.name()),
        subclass: or(templates.subclass, subclass),
        instance: or(templates.instance, instance),
        precedence: raw.precedence,
        persistence: raw.persistence.unwrap_or(Persistence::Normal),
        ttl_s: raw.ttl_s,
        close_after_s: raw.close_after_s,
    };
    (rule, raw.clears)
}

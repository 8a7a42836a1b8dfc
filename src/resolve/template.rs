//! Templates: compiled once by their text, rendered with only the variables that they mention.
//!
//! Handlebars does the parsing and the rendering. Around it: strictness without gaps, values that
//! keep their type where a text is exactly one expression, and guards against what would overflow
//! the stack (CRATES: nesting, partials that include each other).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use handlebars::template::{Parameter, Template, TemplateElement};
use handlebars::{Context, Handlebars, RenderContext, RenderError, RenderErrorReason, Renderable};
use serde_json::{Map, Value};

use super::scan::{self, Fault, Mentions};
use super::{engine, jinja, jinja_only};
use crate::diagnostic::{Diagnostic, nearest};
use crate::project::source::is_reserved;

/// Largest template, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of blocks, or of parentheses.
const MAX_NESTING: usize = 40;
/// The value of the variable `omit`.
pub const OMIT: &str = "\u{F8F6}omit\u{F8F7}";
/// Where `hostvar` finds other hosts' variables in the data of a render.
pub(super) const HOSTVARS: &str = "\u{F8F4}hostvars";

/// A template that was compiled.
#[derive(Debug)]
pub struct Compiled {
    template: Template,
    mentions: Mentions,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// Exactly one plain path, `{{a.b}}`: looked up without rendering.
    Path(Vec<String>, String),
    /// Exactly one expression: keeps its type.
    Expression,
    /// Text.
    Text,
}

/// What is wrong with a template, and where in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// A problem of a variable that the template needs, with that variable's own place.
    pub inner: Option<Box<Diagnostic>>,
    pub message: String,
    pub hint: Option<String>,
    /// Line and column, from 1.
    pub place: (usize, usize),
    /// The partial it is in, if one.
    pub partial: Option<String>,
    /// That it is an undefined name, which `default` may replace.
    pub undefined: bool,
}

impl Trouble {
    fn new(message: impl Into<String>, hint: Option<String>, place: (usize, usize)) -> Self {
        Self { inner: None, message: message.into(), hint, place, partial: None, undefined: false }
    }
}

/// Where a template's names come from.
pub trait Names {
    /// A variable's value; `None` if there is none of this name.
    ///
    /// # Errors
    /// The problem of the variable, with its place.
    fn value(&self, name: &str) -> Result<Option<Arc<Value>>, Undefined>;
    /// Variables of other hosts as `{host: {name: value}}`, of those asked for.
    fn hostvars(&self, host: Option<&str>, name: Option<&str>) -> Value;
    /// A partial by name.
    ///
    /// # Errors
    /// A sentence.
    fn partial(&self, name: &str) -> Result<Arc<Compiled>, Trouble>;
    /// All names, for suggestions.
    fn known(&self) -> Vec<String>;
}

/// Why a variable has no value.
#[derive(Clone, Debug, PartialEq)]
pub struct Undefined {
    pub diagnostic: Diagnostic,
    /// The reason is an undefined name within it: not an error until it is used.
    pub lazy: bool,
}

static CACHE: LazyLock<RwLock<HashMap<Box<str>, Result<Arc<Compiled>, Trouble>>>> = LazyLock::new(RwLock::default);
static REGISTRY: LazyLock<Handlebars<'static>> = LazyLock::new(engine::registry);

/// Whether text has to be rendered at all.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || jinja::statement(text).is_some()
}

/// Compiles a template, or finds it compiled.
///
/// # Errors
/// What is wrong with it.
pub fn compile(source: &str) -> Result<Arc<Compiled>, Trouble> {
    if let Some(found) = CACHE.read().unwrap_or_else(PoisonError::into_inner).get(source) {
        return found.clone();
    }
    let compiled = build(source).map(Arc::new);
    CACHE.write().unwrap_or_else(PoisonError::into_inner).insert(source.into(), compiled.clone());
    compiled
}

/// Compiles a partial, whose problems name it.
///
/// # Errors
/// What is wrong with it.
pub fn compile_partial(name: &str, source: &str) -> Result<Arc<Compiled>, Trouble> {
    let key = format!("{name}\0{source}");
    if let Some(found) = CACHE.read().unwrap_or_else(PoisonError::into_inner).get(key.as_str()) {
        return found.clone();
    }
    let named = |mut compiled: Compiled| {
        compiled.template.name = Some(name.to_owned());
        Arc::new(compiled)
    };
    let compiled = build(source).map(named).map_err(|trouble| Trouble { partial: Some(name.to_owned()), ..trouble });
    CACHE.write().unwrap_or_else(PoisonError::into_inner).insert(key.into(), compiled.clone());
    compiled
}

fn build(source: &str) -> Result<Compiled, Trouble> {
    guard(source)?;
    if let Some((at, hint)) = jinja::statement(source).filter(|_| !source.contains("{{{{raw")) {
        return Err(Trouble::new("`{% ... %}` is not part of these templates", Some(hint), place_of(source, at)));
    }
    let mut template = Template::compile(source).map_err(|error| translated(source, syntax(source, error.pos())))?;
    let mentions = scan::scan(&mut template)
        .map_err(|Fault { place, message, hint }| translated(source, Trouble::new(message, hint, place.unwrap_or((1, 1)))))?;
    let shape = shape(&template);
    Ok(Compiled { template, mentions, shape })
}

/// Refuses what the parser or the renderer would overflow the stack on.
fn guard(source: &str) -> Result<(), Trouble> {
    if source.len() > MAX_BYTES {
        return Err(Trouble::new(format!("the template is larger than {} KiB", MAX_BYTES >> 10), None, (1, 1)));
    }
    if source.contains(is_reserved) {
        return Err(Trouble::new(
            "the template contains a reserved character",
            Some("remove characters from U+F8F0 to U+F8F7".to_owned()),
            (1, 1),
        ));
    }
    let (mut blocks, mut brackets, mut chained, mut inside) = (0_usize, 0_usize, 0_usize, false);
    for (index, byte) in source.bytes().enumerate() {
        let rest = &source.as_bytes()[index..];
        let opens = |marks: &[&str]| marks.iter().any(|mark| rest.starts_with(mark.as_bytes()));
        match byte {
            b'{' if opens(&["{{{{/", "{{/", "{{~/"]) => blocks = blocks.saturating_sub(1),
            b'{' if opens(&["{{{{", "{{#", "{{~#"]) => blocks += 1,
            b'{' if opens(&["{{else ", "{{~else "]) => chained += 1,
            b'(' | b'[' if inside => brackets += 1,
            b')' | b']' if inside => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        match byte {
            b'{' if opens(&["{{"]) => inside = true,
            b'}' if opens(&["}}"]) => (inside, brackets) = (false, 0),
            _ => {}
        }
        // A chain of `else if` is nested too, once it is parsed.
        if blocks > MAX_NESTING || brackets > MAX_NESTING || chained > 4 * MAX_NESTING {
            let line = source[..index].matches('\n').count() + 1;
            return Err(Trouble::new(format!("the template is nested deeper than {MAX_NESTING} levels"), None, (line, 1)));
        }
    }
    Ok(())
}

/// The trouble with a translation in place of its advice, if an expression of the template is
/// Jinja's and can be translated.
fn translated(source: &str, trouble: Trouble) -> Trouble {
    let mut from = 0;
    while let Some(open) = source[from..].find("{{").map(|at| at + from) {
        let Some(length) = source[open..].find("}}") else { break };
        let inner = source[open + 2..open + length].trim().trim_matches('-').trim();
        let wrong = || match Template::compile(&format!("{{{{{inner}}}}}")) {
            Ok(mut template) => scan::scan(&mut template).is_err(),
            Err(_) => true,
        };
        if let Some(text) = jinja::translate(inner).filter(|text| text != inner && wrong()) {
            let hint = format!("this is Jinja: write `{{{{{text}}}}}`");
            return Trouble::new("this is not a Handlebars template", Some(hint), place_of(source, open));
        }
        if let Some(hint) = jinja_only::without_counterpart(inner).filter(|_| wrong()) {
            return Trouble::new("this is not a Handlebars template", Some(hint.to_owned()), place_of(source, open));
        }
        from = open + length;
    }
    trouble
}

/// Line and column of a byte, from 1.
fn place_of(source: &str, byte: usize) -> (usize, usize) {
    let before = &source[..byte];
    (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

/// A syntax error in own words, with the usual reasons.
fn syntax(source: &str, position: Option<(usize, usize)>) -> Trouble {
    let place = position.unwrap_or((1, 1));
    let line = source.lines().nth(place.0.saturating_sub(1)).unwrap_or_default();
    let jinja = |pattern: &str| source.contains(pattern);
    let inside: String = source.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).collect::<Vec<_>>().join(" ");
    let hint = if jinja("{%") {
        "this is Jinja: write `{{#if ...}}`, `{{#each ...}}`"
    } else if inside.contains('|') && !inside.contains(" as |") {
        "this is a Jinja filter: write the function first, `{{default name \"x\"}}` for `name | default('x')`"
    } else if inside.contains("==") || inside.contains("!=") {
        "write `eq a b` or `ne a b`"
    } else if inside.contains('[') || inside.contains("('") || inside.contains("(\"") {
        "write `a.b` or `(lookup a \"b\")` for an entry, `(function argument)` for a call"
    } else if inside.contains(" if ") || inside.contains(" else ") {
        "write `ternary condition yes no`"
    } else if inside.contains(" ~ ") || inside.contains(" + ") {
        "write `concat a b` or `add a b`"
    } else if line.contains("{{/") || source.contains("{{#") {
        "each `{{#name}}` needs its `{{/name}}`"
    } else {
        "text that is not meant as a template is written with `\\{{`"
    };
    Trouble::new("this is not a Handlebars template", Some(hint.to_owned()), place)
}

fn shape(template: &Template) -> Shape {
    let [TemplateElement::Expression(helper) | TemplateElement::HtmlExpression(helper)] = template.elements.as_slice() else {
        return Shape::Text;
    };
    match helper.params.first() {
        Some(Parameter::Path(_)) => {
            let raw = helper.params[0].as_name().unwrap_or_default();
            let parts = scan::parts(raw);
            let special = raw.starts_with('@')
                || parts.iter().any(|part| matches!(part.as_str(), "" | "." | ".." | "this"))
                || parts[0] == "hostvars";
            if special { Shape::Expression } else { Shape::Path(parts, raw.to_owned()) }
        }
        _ => Shape::Expression,
    }
}

/// The value of a template: typed where it is exactly one expression, else text.
///
/// # Errors
/// What is wrong, and where in the template.
pub fn value(compiled: &Compiled, names: &dyn Names) -> Result<Value, Trouble> {
    match &compiled.shape {
        Shape::Path(parts, raw) => path(parts, raw, names, compiled),
        Shape::Expression => {
            let data = Data::collect(compiled, names)?;
            let [TemplateElement::Expression(helper) | TemplateElement::HtmlExpression(helper)] = compiled.template.elements.as_slice()
            else {
                return text(compiled, names).map(Value::String);
            };
            let mut render = RenderContext::new(None);
            match helper.params[0].expand(&REGISTRY, &data.context, &mut render) {
                Ok(found) if found.is_value_missing() => Err(data.missing(found.relative_path().map(String::as_str), (1, 1), names)),
                Ok(found) => Ok(found.value().clone()),
                Err(error) => Err(data.trouble(&error, names)),
            }
        }
        Shape::Text => text(compiled, names).map(Value::String),
    }
}

/// The text of a template.
///
/// # Errors
/// What is wrong, and where in the template.
pub fn text(compiled: &Compiled, names: &dyn Names) -> Result<String, Trouble> {
    let data = Data::collect(compiled, names)?;
    let mut render = RenderContext::new(None);
    if let Some(block) = render.block_mut() {
        for (name, partial) in &data.partials {
            block.set_local_partial(name.clone(), &partial.template);
        }
    }
    compiled.template.renders(&REGISTRY, &data.context, &mut render).map_err(|error| data.trouble(&error, names))
}

fn path(parts: &[String], raw: &str, names: &dyn Names, compiled: &Compiled) -> Result<Value, Trouble> {
    let root = match names.value(&parts[0]) {
        Ok(Some(root)) => root,
        Ok(None) => return Err(undefined(raw, (1, 1), names, &BTreeMap::new(), None)),
        Err(undefined) => {
            return Err(Trouble {
                inner: Some(Box::new(undefined.diagnostic)),
                undefined: undefined.lazy,
                ..Trouble::new("", None, (1, 1))
            });
        }
    };
    let mut value = &*root;
    for part in &parts[1..] {
        let next = match value {
            Value::Object(map) => map.get(part),
            Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => {
                debug_assert!(compiled.mentions.roots.contains(&parts[0]));
                return Err(undefined(raw, (1, 1), names, &BTreeMap::new(), Some(&root)));
            }
        }
    }
    Ok(value.clone())
}

/// The data of one render.
struct Data {
    context: Context,
    partials: BTreeMap<String, Arc<Compiled>>,
    /// Variables that are there but could not be rendered; a problem once they are used.
    broken: BTreeMap<String, Diagnostic>,
}

impl Data {
    fn collect(compiled: &Compiled, names: &dyn Names) -> Result<Self, Trouble> {
        let mut partials = BTreeMap::new();
        let mut open = Vec::new();
        find_partials(compiled, names, &mut open, &mut partials)?;
        let mut map = Map::new();
        let mut broken = BTreeMap::new();
        let all = || std::iter::once(compiled).chain(partials.values().map(|partial| &**partial));
        for root in all().flat_map(|template| &template.mentions.roots) {
            if map.contains_key(root) || root == "hostvars" {
                continue;
            }
            match names.value(root) {
                Ok(Some(value)) => drop(map.insert(root.clone(), Value::clone(&value))),
                Ok(None) => {}
                Err(undefined) if undefined.lazy => drop(broken.insert(root.clone(), undefined.diagnostic)),
                Err(undefined) => return Err(Trouble { inner: Some(Box::new(undefined.diagnostic)), ..Trouble::new("", None, (1, 1)) }),
            }
        }
        let mut others = Map::new();
        for (host, name) in all().flat_map(|template| &template.mentions.hostvars) {
            merge(&mut others, names.hostvars(host.as_deref(), name.as_deref()));
        }
        if all().any(|template| template.mentions.roots.contains("hostvars")) {
            map.insert("hostvars".to_owned(), Value::Object(others.clone()));
        }
        if !others.is_empty() {
            map.insert(HOSTVARS.to_owned(), Value::Object(others));
        }
        let mut context = Context::null();
        *context.data_mut() = Value::Object(map);
        Ok(Self { context, partials, broken })
    }

    fn missing(&self, raw: Option<&str>, place: (usize, usize), names: &dyn Names) -> Trouble {
        let raw = raw.unwrap_or("this value");
        let root =
            scan::parts(raw).into_iter().find(|part| !matches!(part.as_str(), "" | "." | ".." | "this" | "@root")).unwrap_or_default();
        undefined(raw, place, names, &self.broken, self.context.data().get(&root))
    }

    fn trouble(&self, error: &RenderError, names: &dyn Names) -> Trouble {
        let place = (error.line_no.unwrap_or(1), error.column_no.unwrap_or(1));
        let mut trouble = match error.reason() {
            RenderErrorReason::MissingVariable(raw) => self.missing(raw.as_deref(), place, names),
            RenderErrorReason::PartialNotFound(name) => Trouble::new(format!("there is no partial `{name}`"), None, place),
            RenderErrorReason::CannotIncludeSelf => Trouble::new("a partial includes itself", None, place),
            RenderErrorReason::Other(message) => match message.split_once(engine::HINT) {
                Some((message, hint)) => Trouble::new(message, Some(hint.to_owned()), place),
                None => Trouble::new(message.clone(), None, place),
            },
            RenderErrorReason::InvalidJsonIndex(index) => {
                Trouble::new(format!("a list has no entry `{index}`"), Some("entries of lists are numbers, from 0".to_owned()), place)
            }
            other => Trouble::new(other.to_string(), None, place),
        };
        trouble.partial.clone_from(&error.template_name);
        trouble
    }
}

fn find_partials(
    compiled: &Compiled,
    names: &dyn Names,
    open: &mut Vec<String>,
    found: &mut BTreeMap<String, Arc<Compiled>>,
) -> Result<(), Trouble> {
    for name in &compiled.mentions.partials {
        if open.contains(name) || open.len() > MAX_NESTING {
            let chain = [open.as_slice(), std::slice::from_ref(name)].concat().join("` -> `");
            return Err(Trouble::new(
                format!("partials include each other: `{chain}`"),
                Some("take one of them out of the circle".to_owned()),
                (1, 1),
            ));
        }
        if !found.contains_key(name) {
            let partial = names.partial(name)?;
            open.push(name.clone());
            find_partials(&partial, names, open, found)?;
            open.pop();
            found.insert(name.clone(), partial);
        }
    }
    Ok(())
}

fn merge(into: &mut Map<String, Value>, from: Value) {
    let Value::Object(from) = from else { return };
    for (host, vars) in from {
        match (into.get_mut(&host), vars) {
            (Some(Value::Object(known)), Value::Object(vars)) => known.extend(vars),
            (_, vars) => drop(into.insert(host, vars)),
        }
    }
}

/// The error for a path that leads nowhere.
fn undefined(raw: &str, place: (usize, usize), names: &dyn Names, broken: &BTreeMap<String, Diagnostic>, root: Option<&Value>) -> Trouble {
    let parts: Vec<String> = scan::parts(raw).into_iter().filter(|part| !part.is_empty()).collect();
    let first = parts.iter().find(|part| !matches!(part.as_str(), "." | ".." | "this" | "@root")).cloned().unwrap_or_default();
    if let Some(diagnostic) = broken.get(&first) {
        return Trouble { inner: Some(Box::new(diagnostic.clone())), undefined: true, ..Trouble::new("", None, place) };
    }
    let mut hint = None;
    if let Some(mut value) = root {
        for part in parts.iter().skip_while(|part| **part != first).skip(1) {
            let next = match value {
                Value::Object(map) => map.get(part),
                Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            let Some(next) = next else {
                hint = value.as_object().map(|map| match nearest(part, map.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it has: {}", map.keys().take(12).map(String::as_str).collect::<Vec<_>>().join(", ")),
                });
                break;
            };
            value = next;
        }
    } else {
        let known = names.known();
        hint = match nearest(&first, known.iter().map(String::as_str)) {
            Some(near) if near == first => Some(format!("within `{{{{#each}}}}` and `{{{{#with}}}}` write `@root.{first}`")),
            Some(near) => Some(format!("did you mean `{near}`?")),
            None => Some(match crate::project::ansible::unknown_name(&first) {
                Some(hint) => hint.to_owned(),
                None => format!("define it, pass it with `-e`, or write `default {first} \"...\"`"),
            }),
        };
    }
    if hint.is_none() && root.is_some() {
        hint = Some(format!("within `{{{{#each}}}}` and `{{{{#with}}}}` write `@root.{first}`"));
    }
    Trouble { undefined: true, ..Trouble::new(format!("`{raw}` is not defined"), hint, place) }
}

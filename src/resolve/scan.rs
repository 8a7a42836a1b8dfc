//! Walks a parsed template before it is ever rendered: finds the names it mentions, refuses what
//! does not exist, and rewrites every output to go through the strict `show` helper, because
//! Handlebars itself renders a mapping as `[object]` and a null as nothing.

use std::collections::BTreeSet;

use handlebars::template::{DecoratorTemplate, HelperTemplate, Parameter, Subexpression, Template, TemplateElement};
use serde_json::Value;

use super::helpers;
use crate::diagnostic::nearest;

/// The helper that every output goes through.
pub(super) const SHOW: &str = "\u{F8F4}show";
/// Blocks that exist.
const BLOCKS: &[&str] = &["if", "unless", "each", "with"];

/// What a template mentions.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// First parts of paths: variables, and names that blocks bring (which are then not variables).
    pub(super) roots: BTreeSet<String>,
    /// Variables of other hosts: host and name, where they are fixed.
    pub(super) hostvars: BTreeSet<(Option<String>, Option<String>)>,
    /// Partials that are files.
    pub(super) partials: BTreeSet<String>,
    inline: BTreeSet<String>,
}

/// What is wrong with a template before rendering: line and column in it, sentence, advice.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Option<(usize, usize)>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { place: None, message: message.into(), hint }
    }
}

/// Scans and rewrites a template.
pub(super) fn scan(template: &mut Template) -> Result<Mentions, Fault> {
    let mut mentions = Mentions::default();
    walk(template, &mut mentions)?;
    let inline = std::mem::take(&mut mentions.inline);
    mentions.partials.retain(|name| !inline.contains(name));
    Ok(mentions)
}

fn walk(template: &mut Template, mentions: &mut Mentions) -> Result<(), Fault> {
    let places: Vec<(usize, usize)> = template.mapping.iter().map(|mapping| (mapping.0, mapping.1)).collect();
    for (index, element) in template.elements.iter_mut().enumerate() {
        self::element(element, mentions).map_err(|fault| Fault { place: fault.place.or_else(|| places.get(index).copied()), ..fault })?;
    }
    Ok(())
}

fn element(element: &mut TemplateElement, mentions: &mut Mentions) -> Result<(), Fault> {
    match element {
        TemplateElement::Expression(helper) | TemplateElement::HtmlExpression(helper) => output(helper, mentions),
        TemplateElement::HelperBlock(helper) => block(helper, mentions),
        TemplateElement::PartialExpression(partial) | TemplateElement::PartialBlock(partial) => self::partial(partial, mentions),
        TemplateElement::DecoratorBlock(decorator) => inline(decorator, mentions),
        TemplateElement::DecoratorExpression(_) => {
            Err(Fault::new("decorators are not supported", Some("use a partial: `{{> name}}`".to_owned())))
        }
        // Text and comments, and whatever a later version of the library adds renders as it says.
        _ => Ok(()),
    }
}

/// `{{x}}` and `{{f x}}` become `{{show x}}` and `{{show (f x)}}`.
fn output(helper: &mut HelperTemplate, mentions: &mut Mentions) -> Result<(), Fault> {
    let name = std::mem::replace(&mut helper.name, Parameter::Name(SHOW.to_owned()));
    let (params, hash) = (std::mem::take(&mut helper.params), std::mem::take(&mut helper.hash));
    let mut parameter =
        if params.is_empty() && hash.is_empty() { as_path(name) } else { Parameter::Subexpression(Subexpression::new(name, params, hash)) };
    self::parameter(&mut parameter, mentions)?;
    helper.params = vec![parameter];
    Ok(())
}

/// A name alone is a variable's, whatever helpers there are.
fn as_path(name: Parameter) -> Parameter {
    match name {
        Parameter::Name(name) => match handlebars::Path::parse(&name) {
            Ok(path) => Parameter::Path(path),
            Err(_) => Parameter::Name(name),
        },
        other => other,
    }
}

fn parameter(parameter: &mut Parameter, mentions: &mut Mentions) -> Result<(), Fault> {
    match parameter {
        Parameter::Literal(_) => Ok(()),
        Parameter::Path(_) | Parameter::Name(_) => {
            mention(parameter.as_name().unwrap_or_default(), mentions);
            Ok(())
        }
        Parameter::Subexpression(inner) => {
            let TemplateElement::Expression(helper) = inner.element.as_mut() else { return Ok(()) };
            if helper.params.is_empty() && helper.hash.is_empty() {
                let name = std::mem::replace(&mut helper.name, Parameter::Literal(Value::Null));
                *parameter = as_path(name);
                return self::parameter(parameter, mentions);
            }
            call(helper, mentions)
        }
        _ => Ok(()),
    }
}

/// A call of a function.
fn call(helper: &mut HelperTemplate, mentions: &mut Mentions) -> Result<(), Fault> {
    let name = helper.name.as_name().unwrap_or_default().to_owned();
    if name == "hostvar" {
        let literal = |index: usize| match helper.params.get(index) {
            Some(Parameter::Literal(Value::String(text))) => Some(text.clone()),
            _ => None,
        };
        if helper.params.len() != 2 {
            return Err(Fault::new("`hostvar` is written `hostvar \"HOST\" \"NAME\"`", None));
        }
        mentions.hostvars.insert((literal(0), literal(1)));
    } else if helpers::find(&name).is_none() {
        let names = helpers::FUNCTIONS.iter().map(|function| function.name).chain(["hostvar"]);
        let hint = match nearest(&name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None if BLOCKS.contains(&name.as_str()) => format!("`{name}` is a block: `{{{{#{name} ...}}}}`; the function is `ternary`"),
            None => "`soc-provision docs functions` lists them".to_owned(),
        };
        return Err(Fault::new(format!("there is no function `{name}`"), Some(hint)));
    }
    if !helper.hash.is_empty() {
        return Err(Fault::new(format!("`{name}` takes no named arguments"), None));
    }
    helper.params.iter_mut().try_for_each(|parameter| self::parameter(parameter, mentions))
}

fn block(helper: &mut HelperTemplate, mentions: &mut Mentions) -> Result<(), Fault> {
    let name = helper.name.as_name().unwrap_or_default().to_owned();
    if name != "raw" {
        if !BLOCKS.contains(&name.as_str()) {
            let hint = match (helpers::find(&name), nearest(&name, BLOCKS.iter().copied())) {
                (Some(function), _) => format!("write `{{{{#if ({})}}}}`", function.usage),
                (None, Some(near)) => format!("did you mean `{{{{#{near} ...}}}}`?"),
                (None, None) => "blocks: `if`, `unless`, `each`, `with`".to_owned(),
            };
            return Err(Fault::new(format!("there is no block `{name}`"), Some(hint)));
        }
        if helper.params.len() != 1 {
            return Err(Fault::new(
                format!("`{{{{#{name}}}}}` takes one argument"),
                Some(format!("put a call into parentheses: `{{{{#{name} (eq a b)}}}}`")),
            ));
        }
    }
    helper.params.iter_mut().try_for_each(|parameter| self::parameter(parameter, mentions))?;
    for part in [&mut helper.template, &mut helper.inverse].into_iter().flatten() {
        walk(part, mentions)?;
    }
    Ok(())
}

fn partial(partial: &mut DecoratorTemplate, mentions: &mut Mentions) -> Result<(), Fault> {
    let Some(name) = partial.name.as_name() else {
        return Err(Fault::new("the name of a partial must be fixed", Some("use `{{#if}}` around two partials".to_owned())));
    };
    if name != "@partial-block" {
        mentions.partials.insert(name.to_owned());
    }
    partial.params.iter_mut().chain(partial.hash.values_mut()).try_for_each(|parameter| self::parameter(parameter, mentions))?;
    partial.template.as_mut().map_or(Ok(()), |template| walk(template, mentions))
}

fn inline(decorator: &mut DecoratorTemplate, mentions: &mut Mentions) -> Result<(), Fault> {
    if decorator.name.as_name() != Some("inline") {
        return Err(Fault::new("decorators are not supported", Some("only `{{#*inline \"name\"}}` is".to_owned())));
    }
    if let Some(Parameter::Literal(Value::String(name))) = decorator.params.first() {
        mentions.inline.insert(name.clone());
    }
    decorator.template.as_mut().map_or(Ok(()), |template| walk(template, mentions))
}

/// The variable that a path starts with.
fn mention(path: &str, mentions: &mut Mentions) {
    if path.starts_with('@') && !path.starts_with("@root") {
        return;
    }
    let parts: Vec<String> = parts(path).into_iter().filter(|part| !matches!(part.as_str(), "" | "@root" | "this" | "." | "..")).collect();
    let Some(root) = parts.first() else { return };
    if root == "hostvars" {
        mentions.hostvars.insert((parts.get(1).cloned(), parts.get(2).cloned()));
    }
    mentions.roots.insert(root.clone());
}

/// The parts of a path: `a.b`, `a/b`, `a.[b.c].d`.
pub(super) fn parts(path: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut bracket = false;
    for c in path.chars() {
        match c {
            '[' if !bracket => bracket = true,
            ']' if bracket => bracket = false,
            '.' | '/' if !bracket => {
                // `..` is one part.
                match out.last_mut() {
                    Some(last) if c == '.' && (last.is_empty() || last == ".") => last.push('.'),
                    _ => out.push(String::new()),
                }
            }
            c => {
                if let Some(last) = out.last_mut() {
                    if last == "." || last == ".." {
                        out.push(c.to_string());
                    } else {
                        last.push(c);
                    }
                }
            }
        }
    }
    out
}

//! The wiring to Handlebars: the registry, functions as helpers, and strict `if` and `unless`.

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, PathAndJson, RenderContext, RenderError, RenderErrorReason, Renderable,
    ScopedJson,
};
use serde_json::Value;

use super::helpers::{self, Function};
use super::scan::SHOW;
use super::template::{HOSTVARS, OMIT};

/// Separates a message from its advice within an error of the library.
pub(super) const HINT: &str = "\u{F8F5}";

/// The one registry: strict, without HTML escapes.
pub(super) fn registry() -> Handlebars<'static> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    registry.unregister_helper("log");
    for function in helpers::FUNCTIONS {
        registry.register_helper(function.name, Box::new(Call(function)));
    }
    registry.register_helper(SHOW, Box::new(Show));
    registry.register_helper("hostvar", Box::new(Hostvar));
    registry.register_helper("if", Box::new(If { positive: true }));
    registry.register_helper("unless", Box::new(If { positive: false }));
    registry
}

fn fail(message: impl Into<String>) -> RenderError {
    RenderErrorReason::Other(message.into()).into()
}

fn missing(parameter: &PathAndJson<'_>) -> RenderError {
    RenderErrorReason::MissingVariable(parameter.relative_path().cloned()).into()
}

/// A function of `helpers.rs`.
struct Call(&'static Function);

impl HelperDef for Call {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let mut arguments = Vec::with_capacity(helper.params().len());
        for parameter in helper.params() {
            match parameter.is_value_missing() {
                // Only the first argument of `default` may be undefined, not the fallback.
                true if self.0.takes_undefined && arguments.is_empty() => arguments.push(None),
                true => return Err(missing(parameter)),
                false => arguments.push(Some(parameter.value())),
            }
        }
        self.0.apply(&arguments).map(ScopedJson::Derived).map_err(fail)
    }
}

/// Turns a value into text, strictly.
struct Show;

impl HelperDef for Show {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let parameter = helper.param(0).ok_or_else(|| fail("nothing to show"))?;
        if parameter.is_value_missing() {
            return Err(missing(parameter));
        }
        let path = parameter.relative_path().map(String::as_str);
        let name = path.unwrap_or("this value");
        let argument = path.unwrap_or("(...)");
        match parameter.value() {
            Value::String(text) if text.contains(OMIT) => {
                Err(fail(format!("`omit` must be the whole value{HINT}write `\"{{{{default name omit}}}}\"` and nothing else")))
            }
            Value::String(text) => Ok(ScopedJson::Derived(Value::String(text.clone()))),
            Value::Null => Err(fail(format!("`{name}` is null{HINT}write `{{{{default {argument} \"\"}}}}`"))),
            value @ (Value::Array(_) | Value::Object(_)) => Err(fail(format!(
                "`{name}` is {}, not text{HINT}write `{{{{to_json {argument}}}}}` or `{{{{join {argument} \", \"}}}}`",
                helpers::sort(value)
            ))),
            scalar => Ok(ScopedJson::Derived(Value::String(scalar.to_string()))),
        }
    }
}

/// `hostvar "web1" "ansible_host"`.
struct Hostvar;

impl HelperDef for Hostvar {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        context: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let word = |index: usize| -> Result<String, RenderError> {
            let parameter = helper.param(index).ok_or_else(|| fail("`hostvar` is written `hostvar \"HOST\" \"NAME\"`"))?;
            if parameter.is_value_missing() {
                return Err(missing(parameter));
            }
            helpers::text(parameter.value()).map_err(fail)
        };
        let (host, name) = (word(0)?, word(1)?);
        let Some(vars) = context.data().get(HOSTVARS).and_then(|hosts| hosts.get(&host)) else {
            return Err(fail(format!("there is no host `{host}` in the inventory")));
        };
        // Missing, so that `default` can step in.
        Ok(vars.get(&name).map_or(ScopedJson::Missing, |value| ScopedJson::Derived(value.clone())))
    }
}

/// `if` and `unless` that do not take an undefined name for false.
struct If {
    positive: bool,
}

impl HelperDef for If {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let parameter = helper.param(0).ok_or_else(|| fail("`if` needs a condition"))?;
        if parameter.is_value_missing() {
            return Err(missing(parameter));
        }
        let branch = if helpers::truthy(parameter.value()) == self.positive { helper.template() } else { helper.inverse() };
        branch.map_or(Ok(()), |template| template.render(registry, context, render, out))
    }
}

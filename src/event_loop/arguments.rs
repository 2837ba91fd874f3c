//! The arguments of the scheduling methods: the callback, its arguments and context.

use std::sync::atomic::Ordering;

use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::errors;
use crate::event_loop::native::This;
use crate::imports::Imports;
use crate::py::args::missing_arguments;
use crate::py::{Args, Live, Owned, context};

/// How a scheduling method was called.
pub(super) struct Call<'a> {
    pub(super) name: &'static str,
    pub(super) callable: Live<'a>,
    pub(super) args: &'a [Live<'a>],
    pub(super) context: Option<Owned>,
}

// HOT: call_soon
#[inline(always)]
pub(super) fn parse<'a>(
    py: Python<'_>,
    name: &'static str,
    args: Args<'a, '_>,
    before: &[&'static str],
) -> PyResult<Call<'a>> {
    let context = if args.has_keywords() {
        match args.only_keyword(&Imports::get(py)?.context) {
            Some(context) if !context.is_none() => Some(context.clone_ref(py)),
            Some(_) => None,
            None => return parse_keywords(py, name, args, before),
        }
    } else {
        None
    };
    match args.positional().split_at_checked(before.len()) {
        Some((_, [callable, args @ ..])) => {
            Ok(Call { name, callable: *callable, args, context: checked_context(py, context)? })
        }
        _ => Err(missing(name, args.positional().len(), before, &[])),
    }
}

/// Keywords other than just `context`: `callback=` and `delay=` by name.
#[cold]
fn parse_keywords<'a>(
    py: Python<'_>,
    name: &'static str,
    args: Args<'a, '_>,
    before: &[&'static str],
) -> PyResult<Call<'a>> {
    let mut callable = args.positional().get(before.len()).copied();
    let mut context = None;
    let mut given = Vec::new();
    for (keyword, value) in args.keywords() {
        let keyword = keyword.to_cow()?.into_owned();
        match keyword.as_str() {
            "context" => context = (!value.is_none()).then(|| Owned::from(&*value)),
            "callback" if callable.is_none() => callable = Some(value.into()),
            known if before.iter().take(1).skip(args.positional().len()).any(|b| *b == known) => {}
            known if known == "callback" || before.contains(&known) => {
                return Err(PyTypeError::new_err(format!(
                    "{name}() got multiple values for argument '{known}'"
                )));
            }
            unknown => {
                return Err(PyTypeError::new_err(format!(
                    "{name}() got an unexpected keyword argument '{unknown}'"
                )));
            }
        }
        given.push(keyword);
    }
    let missing_before = before
        .iter()
        .skip(args.positional().len())
        .any(|parameter| !given.iter().any(|keyword| keyword == parameter));
    match callable {
        Some(callable) if !missing_before => {
            let rest = args.positional().get(before.len() + 1..).unwrap_or(&[]);
            Ok(Call { name, callable, args: rest, context: checked_context(py, context)? })
        }
        _ => Err(missing(name, args.positional().len(), before, &given)),
    }
}

/// The parameter before the callback, by position or name.
#[inline]
pub(super) fn first<'a, 'py>(
    args: &Args<'a, 'py>,
    name: &str,
) -> PyResult<Borrowed<'a, 'py, PyAny>> {
    if args.positional().is_empty() {
        for (keyword, value) in args.keywords() {
            if keyword.to_cow()? == name {
                return Ok(value);
            }
        }
    }
    // `parse` has found one already.
    args.get(0).ok_or_else(|| missing_arguments(name, &[format!("'{name}'")]))
}

#[cold]
fn missing(name: &str, count: usize, before: &[&'static str], given: &[String]) -> PyErr {
    let missing: Vec<_> = before
        .iter()
        .chain(&["callback"])
        .skip(count)
        .filter(|parameter| !given.iter().any(|keyword| keyword == *parameter))
        .map(|parameter| format!("'{parameter}'"))
        .collect();
    missing_arguments(&format!("BaseEventLoop.{name}"), &missing)
}

/// Refuses what is not exactly a `Context`. asyncio takes any object, and fails later
/// if that has no `run` method.
#[inline(always)]
fn checked_context(py: Python<'_>, context: Option<Owned>) -> PyResult<Option<Owned>> {
    if let Some(context) = &context {
        if !context::is_context(py, context) {
            let class = context.bind(py).get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "a contextvars.Context was expected, got {class}"
            )));
        }
    }
    Ok(context)
}

/// What every scheduling method checks first.
// HOT: call_soon
#[inline(always)]
pub(super) fn check(py: Python<'_>, this: This<'_>, call: &Call<'_>) -> PyResult<()> {
    if this.event_loop.closed.load(Ordering::Relaxed) {
        return Err(errors::closed());
    }
    if this.event_loop.debug() {
        let this = this.bind(py);
        this.call_method0("_check_thread")?;
        // asyncio's call_later calls call_at, so its checks name that.
        let name = if call.name == "call_later" { "call_at" } else { call.name };
        this.call_method1("_check_callback", (call.callable.bind(py), name))?;
    }
    Ok(())
}

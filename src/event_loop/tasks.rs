//! `create_task`: without asyncio's method where that would only make a task.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::event_loop::native::This;
use crate::imports::Imports;
use crate::py::args::as_tuple;
use crate::py::{Args, Live, Owned, call};

// HOT: task
pub(crate) fn create_task<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Owned> {
    let imports = Imports::get(py)?;
    let plain = args.positional().len() == 1 && task_keywords(&args, imports);
    if plain && this.is_current() && !this.event_loop.debug() && !this.event_loop.closed() {
        let factory = this.event_loop.cell.enter(py).map(|inside| {
            // Only this check is made inside `with`: the call below runs the first step of
            // an eager task.
            inside.with(|state| state.task_factory.is_some())
        });
        if matches!(factory, Ok(false))
            && is_stock_task(py, imports)?
            && this.is_asyncios(py, imports)?
        {
            // Without a loop argument, a task takes asyncio's running loop: this one.
            return args.call(imports.task.bind(py));
        }
    }
    inherited_create_task(py, this, args, imports)
}

/// Whether `asyncio.tasks.Task`, which asyncio's method looks up for each task, is
/// still the stock class.
#[inline]
fn is_stock_task(py: Python<'_>, imports: &Imports) -> PyResult<bool> {
    let class = imports.tasks.bind(py).get_item(intern!(py, "Task"))?;
    Ok(class.is_some_and(|class| class.is(&imports.task)))
}

/// Whether asyncio's method would hand the keywords to the task as they are.
#[inline]
fn task_keywords(args: &Args<'_, '_>, imports: &Imports) -> bool {
    let names = [
        (true, &imports.name_name),
        (cfg!(Py_3_11), &imports.context.name),
        (cfg!(Py_3_14), &imports.eager_start_name),
    ];
    let taken = names.iter().filter(|(since, _)| *since).map(|(_, name)| Live::from(*name));
    args.keywords_among(taken)
}

#[cold]
fn inherited_create_task<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
    imports: &Imports,
) -> PyResult<Owned> {
    // Refuse a wrong thread here: asyncio's code would fail only when it reads the task
    // factory, with an error that names `get_task_factory`.
    drop(this.event_loop.enter(py, "create_task")?);
    let keywords = PyDict::new(py);
    for (name, value) in args.keywords() {
        keywords.set_item(name, value)?;
    }
    let positional = (0..args.positional().len()).filter_map(|index| args.get(index));
    let all = std::iter::once(this.bind(py)).chain(positional).map(|value| value.to_owned());
    let all = as_tuple(py, all)?;
    Ok(imports.base_create_task.bind(py).call(all, Some(&keywords))?.into())
}

impl This<'_> {
    /// Whether this is also asyncio's running loop in this thread: it is not while a
    /// callback of this loop runs another one.
    #[inline]
    fn is_asyncios(&self, py: Python<'_>, imports: &Imports) -> PyResult<bool> {
        let running = call::call0(py, &imports.running_loop)?;
        Ok(running.live().is(self.live()))
    }
}

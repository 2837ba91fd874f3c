//! The arguments of a native method, and the errors for wrong ones.
#![allow(unsafe_code)]

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple};
use pyo3::{Borrowed, ffi};

use crate::py::{Live, Owned};

/// What a caller passed: a slice of positional values, then keyword values.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a, 'py> {
    py: Python<'py>,
    values: &'a [Live<'a>],
    positional: usize,
    names: *mut ffi::PyObject,
}

impl<'a, 'py> Args<'a, 'py> {
    /// Wraps what CPython passes to a fastcall method.
    ///
    /// # Safety
    /// The arguments are those of one call, alive for 'a.
    #[inline]
    pub(crate) unsafe fn new(
        py: Python<'py>,
        values: *const *mut ffi::PyObject,
        positional: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> Self {
        let positional = positional as usize;
        let named = if names.is_null() {
            0
        } else {
            // SAFETY: keyword names come as a tuple.
            unsafe { ffi::PyTuple_GET_SIZE(names) as usize }
        };
        let count = positional + named;
        // SAFETY: CPython passes that many values, and the caller keeps them alive.
        let values = unsafe { Live::slice(values, count) };
        Self { py, values, positional, names }
    }

    /// The positional values.
    #[inline]
    pub(crate) fn positional(&self) -> &'a [Live<'a>] {
        self.values.get(..self.positional).unwrap_or(&[])
    }

    /// A borrowed view of the value at `index`.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
        self.values.get(index).map(|value| value.bind(self.py))
    }

    /// Whether keywords were passed.
    #[inline]
    pub(crate) fn has_keywords(&self) -> bool {
        !self.names.is_null()
    }

    /// The value of the keyword, if it is the only one.
    // HOT: call_soon
    #[inline]
    pub(crate) fn only_keyword(&self, keyword: &Keyword) -> Option<Live<'a>> {
        if self.names.is_null() || self.values.len() != self.positional + 1 {
            return None;
        }
        let known = keyword.known.get(self.py).is_some_and(|known| known.as_ptr() == self.names);
        if known || self.is_named(keyword) { self.values.last().copied() } else { None }
    }

    /// Whether the one keyword is the given one.
    #[inline]
    fn is_named(&self, keyword: &Keyword) -> bool {
        // SAFETY: the tuple holds one name, as counted in `new`.
        let given = unsafe { Live::new(ffi::PyTuple_GET_ITEM(self.names, 0)) };
        let name = Live::from(&keyword.name);
        if given.is(name) {
            return true;
        }
        let same = same_name(given, name);
        if same {
            // SAFETY: the caller of the method keeps the tuple alive.
            let names = unsafe { Owned::from_borrowed(self.names) };
            // Only the first is kept, in all likelihood that of `_asyncio`.
            let _ = keyword.known.set(self.py, names);
        }
        same
    }

    /// Whether every keyword is one of `names`.
    #[inline]
    pub(crate) fn keywords_among<'n>(&self, names: impl Iterator<Item = Live<'n>> + Clone) -> bool {
        (0..self.values.len() - self.positional).all(|index| {
            // SAFETY: the tuple holds a name for each value that is not
            // positional, as counted in `new`.
            let given = unsafe { Live::new(ffi::PyTuple_GET_ITEM(self.names, index as _)) };
            names.clone().any(|name| same_name(given, name))
        })
    }

    /// The keywords by name.
    pub(crate) fn keywords(
        &self,
    ) -> impl Iterator<Item = (Bound<'py, PyString>, Borrowed<'a, 'py, PyAny>)> {
        let py = self.py;
        let names: Vec<_> = if self.names.is_null() {
            Vec::new()
        } else {
            // SAFETY: keyword names come as a tuple of strings.
            let names = unsafe { Borrowed::from_ptr(py, self.names).cast_unchecked::<PyTuple>() };
            names.iter().filter_map(|name| name.cast_into::<PyString>().ok()).collect()
        };
        let values = self.values.get(self.positional..).unwrap_or(&[]);
        names.into_iter().zip(values).map(move |(name, value)| (name, value.bind(py)))
    }

    /// Passes the arguments on to a function, after `receiver`.
    ///
    /// # Errors
    /// What the function raises.
    pub(crate) fn forward(
        &self,
        function: &Bound<'py, PyAny>,
        receiver: &Bound<'py, PyAny>,
    ) -> PyResult<Owned> {
        let mut values = Vec::with_capacity(self.values.len() + 1);
        values.push(receiver.as_ptr());
        values.extend(self.values.iter().map(|value| value.as_ptr()));
        // SAFETY: the callable and all values are alive during the call, and
        // the names belong to the last of the values.
        let result = unsafe {
            ffi::PyObject_Vectorcall(
                function.as_ptr(),
                values.as_ptr(),
                self.positional + 1,
                self.names,
            )
        };
        // SAFETY: a new reference, or null with an exception.
        unsafe { Owned::from_result(self.py, result) }
    }

    /// Passes the arguments on to a function as they are.
    ///
    /// # Errors
    /// What the function raises.
    pub(crate) fn call(&self, function: &Bound<'py, PyAny>) -> PyResult<Owned> {
        // SAFETY: the callable and all values are alive during the call, and
        // the names belong to the last of the values.
        let result = unsafe {
            ffi::PyObject_Vectorcall(
                function.as_ptr(),
                self.values.as_ptr().cast(),
                self.positional,
                self.names,
            )
        };
        // SAFETY: a new reference, or null with an exception.
        unsafe { Owned::from_result(self.py, result) }
    }

    /// Checks that there is no argument at all.
    ///
    /// # Errors
    /// TypeError, as a Python function would raise it.
    #[inline]
    pub(crate) fn none(&self, function: &str) -> PyResult<()> {
        if self.values.is_empty() { Ok(()) } else { self.bind(function, [], 0).map(drop) }
    }

    /// The arguments, if there are exactly `N` and none is a keyword.
    #[inline]
    pub(crate) fn exactly<const N: usize>(&self) -> Option<[Borrowed<'a, 'py, PyAny>; N]> {
        let values: &[Live<'a>; N] = self.values.try_into().ok()?;
        self.names.is_null().then(|| values.map(|value| value.bind(self.py)))
    }

    /// Exactly one argument, by position or by name.
    ///
    /// # Errors
    /// TypeError, as a Python function would raise it.
    // HOT: proto
    #[inline]
    pub(crate) fn one(
        &self,
        function: &str,
        name: &'static str,
    ) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        if let ([_], 1) = (self.values, self.positional) {
            if let Some(value) = self.get(0) {
                return Ok(value);
            }
        }
        let [value] = self.bind(function, [name], 1)?;
        value.ok_or_else(|| PyTypeError::new_err("missing argument"))
    }

    /// Matches the arguments with parameter names, the first `required` of
    /// which have no default.
    ///
    /// # Errors
    /// TypeError in CPython's words.
    #[cold]
    pub(crate) fn bind<const N: usize>(
        &self,
        function: &str,
        parameters: [&'static str; N],
        required: usize,
    ) -> PyResult<[Option<Borrowed<'a, 'py, PyAny>>; N]> {
        let mut bound = [const { None }; N];
        if self.positional > N {
            let plural = if N == 0 { "" } else { "s" };
            let takes = if required < N {
                format!("from {} to {}", required + 1, N + 1)
            } else {
                format!("{}", N + 1)
            };
            return Err(PyTypeError::new_err(format!(
                "{function}() takes {takes} positional argument{plural} but {} were given",
                self.positional + 1,
            )));
        }
        for (index, slot) in bound.iter_mut().enumerate().take(self.positional) {
            *slot = self.get(index);
        }
        for (name, value) in self.keywords() {
            let name = name.to_cow()?;
            let slot = parameters
                .iter()
                .position(|parameter| *parameter == name)
                .and_then(|index| bound.get_mut(index));
            match slot {
                None => {
                    return Err(PyTypeError::new_err(format!(
                        "{function}() got an unexpected keyword argument '{name}'"
                    )));
                }
                Some(Some(_)) => {
                    return Err(PyTypeError::new_err(format!(
                        "{function}() got multiple values for argument '{name}'"
                    )));
                }
                Some(empty) => *empty = Some(value),
            }
        }
        let missing: Vec<_> = parameters
            .iter()
            .zip(&bound)
            .take(required)
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| format!("'{name}'"))
            .collect();
        if !missing.is_empty() {
            return Err(missing_arguments(function, &missing));
        }
        Ok(bound)
    }
}

/// The name of a keyword.
pub(crate) struct Keyword {
    pub(crate) name: Py<PyString>,
    /// A tuple of this name only, but as another string: `_asyncio` passes the same tuple
    /// with every call, so the string is compared once.
    known: PyOnceLock<Owned>,
}

impl Keyword {
    /// A keyword by its interned name.
    pub(crate) fn new(name: &Bound<'_, PyString>) -> Self {
        Self { name: name.clone().unbind(), known: PyOnceLock::new() }
    }
}

/// Whether two keyword names are equal. Calls from C, such as asyncio's own, may pass
/// strings that are not interned.
#[inline]
fn same_name(given: Live<'_>, name: Live<'_>) -> bool {
    // SAFETY: names of keywords are strings.
    given.is(name) || unsafe { ffi::PyUnicode_Compare(given.as_ptr(), name.as_ptr()) } == 0
}

/// The value of an exact `int` that fits a machine word.
#[inline]
pub(crate) fn exact_size(value: &Bound<'_, PyAny>) -> Option<isize> {
    // SAFETY: a live object.
    if unsafe { ffi::PyLong_CheckExact(value.as_ptr()) } == 0 {
        return None;
    }
    // SAFETY: an int.
    let size = unsafe { ffi::PyLong_AsSsize_t(value.as_ptr()) };
    if size == -1 && PyErr::take(value.py()).is_some() {
        return None;
    }
    Some(size)
}

/// The argument tuple of a Python-level call.
pub(crate) fn as_tuple<'py>(
    py: Python<'py>,
    values: impl IntoIterator<Item = Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, values.into_iter().collect::<Vec<_>>())
}

/// CPython's words for parameters that got no value.
pub(crate) fn missing_arguments(function: &str, missing: &[String]) -> PyErr {
    let names = match missing {
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [first @ .., last] => format!("{}, and {last}", first.join(", ")),
        [] => String::new(),
    };
    let plural = if missing.len() == 1 { "" } else { "s" };
    PyTypeError::new_err(format!(
        "{function}() missing {} required positional argument{plural}: {names}",
        missing.len(),
    ))
}

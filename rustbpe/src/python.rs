//! The Python rim: arguments in, results out, the GIL released in between. No algorithm lives here.

use std::borrow::Cow;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};

use crate::encode::{flatten, Encoder};
use crate::error::{checked, Error};
use crate::split::{Splitter, GPT4_PATTERN};
use crate::thread_pool;
use crate::train::{Limits, WordCounts};

/// Documents between two looks for Ctrl-C.
const DOCUMENTS_PER_SIGNAL_CHECK: usize = 64;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

fn checked_threads(threads: i64) -> Result<usize, Error> {
    checked("threads", threads, 0..1025, "0 (all cores) or 1 to 1024")
}

/// The text, lone surrogates replaced by U+FFFD and surrogate pairs joined, as tiktoken does.
fn text_of<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, str>> {
    if let Ok(text) = text.to_str() {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.call_method1("encode", ("utf-16-le", "surrogatepass"))?.extract::<Vec<u8>>()?;
    let units: Vec<u16> = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    Ok(Cow::Owned(String::from_utf16_lossy(&units)))
}

/// Train a vocabulary; see rustbpe.pyi.
#[pyfunction]
#[pyo3(signature = (documents, vocab_size, pattern=GPT4_PATTERN, *, max_doc_chars=10_000, max_chars=2_000_000_000, threads=0))]
fn train(
    py: Python<'_>,
    documents: &Bound<'_, PyAny>,
    vocab_size: i64,
    pattern: &str,
    max_doc_chars: i64,
    max_chars: i64,
    threads: i64,
) -> PyResult<Vec<Vec<u8>>> {
    let vocab_size =
        checked("vocab_size", vocab_size, 256..usize::MAX, "at least 256, one id for each byte")?;
    let limits = Limits {
        of_document: checked("max_doc_chars", max_doc_chars, 1..usize::MAX, "at least 1")?,
        in_all: checked("max_chars", max_chars, 1..usize::MAX, "at least 1")?,
    };
    if documents.is_instance_of::<PyString>() {
        return Err(PyValueError::new_err("documents is one string: pass an iterable of strings"));
    }
    let pool = thread_pool(checked_threads(threads)?)?;
    let mut counts = WordCounts::new(Splitter::new(pattern)?, limits);
    for (index, document) in documents.try_iter()?.enumerate() {
        if index % DOCUMENTS_PER_SIGNAL_CHECK == 0 {
            py.check_signals()?;
        }
        if counts.push(&text_of(document?.cast::<PyString>()?)?) {
            py.detach(|| counts.count(&pool))?;
        }
        if counts.is_full() {
            break;
        }
    }
    py.detach(|| counts.into_tokens(vocab_size, &pool, || Python::attach(|py| py.check_signals())))
}

/// Cut a text into the pieces that merges never cross; see rustbpe.pyi.
#[pyfunction]
#[pyo3(signature = (text, pattern=GPT4_PATTERN))]
fn split(text: &Bound<'_, PyString>, pattern: &str) -> PyResult<Vec<String>> {
    let text = text_of(text)?;
    Ok(Splitter::new(pattern)?.split(&text)?.into_iter().map(str::to_owned).collect())
}

#[pyclass(frozen, name = "Encoder", module = "rustbpe")]
struct PyEncoder(Encoder);

#[pymethods]
impl PyEncoder {
    #[new]
    #[pyo3(signature = (tokens, pattern=GPT4_PATTERN))]
    fn new(py: Python<'_>, tokens: Vec<Vec<u8>>, pattern: &str) -> PyResult<Self> {
        Ok(Self(py.detach(|| Encoder::new(tokens, pattern))?))
    }

    #[getter]
    fn n_tokens(&self) -> usize {
        self.0.n_tokens()
    }

    fn encode(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<Vec<u32>> {
        let text = text_of(text)?;
        Ok(py.detach(|| self.0.encode(&text))?)
    }

    #[pyo3(signature = (texts, threads=0))]
    fn encode_batch(
        &self,
        py: Python<'_>,
        texts: Vec<Bound<'_, PyString>>,
        threads: i64,
    ) -> PyResult<Vec<Vec<u32>>> {
        let texts = texts.iter().map(text_of).collect::<PyResult<Vec<_>>>()?;
        let threads = checked_threads(threads)?;
        Ok(py.detach(|| self.0.encode_batch(&texts, threads))?)
    }

    #[pyo3(signature = (texts, threads=0))]
    fn encode_batch_flat<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<Bound<'_, PyString>>,
        threads: i64,
    ) -> PyResult<(Bound<'py, PyByteArray>, Bound<'py, PyByteArray>)> {
        let (ids, offsets) = flatten(&self.encode_batch(py, texts, threads)?);
        let ids: Vec<u8> = ids.into_iter().flat_map(u32::to_ne_bytes).collect();
        let offsets: Vec<u8> = offsets.into_iter().flat_map(u64::to_ne_bytes).collect();
        Ok((PyByteArray::new(py, &ids), PyByteArray::new(py, &offsets)))
    }

    fn decode_bytes<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = ids.try_iter()?.map(|id| id?.extract::<i64>()).collect::<PyResult<Vec<_>>>();
        let too_large = |e: &PyErr| e.is_instance_of::<PyOverflowError>(py);
        let ids = ids.map_err(|e| {
            if too_large(&e) {
                PyValueError::new_err("unknown token id: beyond 64 bits")
            } else {
                e
            }
        })?;
        Ok(PyBytes::new(py, &py.detach(|| self.0.decode(&ids))?))
    }
}

#[pymodule]
fn rustbpe(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("GPT4_PATTERN", GPT4_PATTERN)?;
    module.add_class::<PyEncoder>()?;
    module.add_function(wrap_pyfunction!(train, module)?)?;
    module.add_function(wrap_pyfunction!(split, module)?)
}

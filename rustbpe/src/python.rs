//! The Python rim: arguments in, results out, the GIL released in between. No algorithm lives here.

use std::borrow::Cow;
use std::sync::Mutex;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyInt, PyList, PyString};

use crate::batch::{Block, Stream};
use crate::encode::Encoder;
use crate::error::{checked, Error};
use crate::patterns::{GPT4_PATTERN, NAMED};
use crate::split::Splitter;
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

/// A document of the caller's, its text in Python's own memory where that is UTF-8.
enum Document {
    Python(PyBackedStr),
    Repaired(String),
}

impl AsRef<str> for Document {
    fn as_ref(&self) -> &str {
        match self {
            Self::Python(text) => text,
            Self::Repaired(text) => text,
        }
    }
}

fn document_of(text: Bound<'_, PyAny>) -> PyResult<Document> {
    let text = text.cast_into::<PyString>()?;
    match PyBackedStr::try_from(text.clone()) {
        Ok(text) => Ok(Document::Python(text)),
        Err(_) => Ok(Document::Repaired(text_of(&text)?.into_owned())),
    }
}

/// What an argument of many strings holds, one at a time.
fn strings_of<'py>(
    name: &str,
    strings: &Bound<'py, PyAny>,
) -> PyResult<impl Iterator<Item = PyResult<Document>> + use<'py>> {
    if strings.is_instance_of::<PyString>() {
        return Err(PyValueError::new_err(format!("{name} is one string: pass an iterable of strings")));
    }
    Ok(strings.try_iter()?.map(|string| document_of(string?)))
}

/// Train a vocabulary; see rustbpe.pyi.
#[pyfunction]
#[pyo3(signature = (documents, vocab_size, pattern=GPT4_PATTERN, *, max_doc_chars=10_000, max_chars=2_000_000_000, threads=0, progress=None))]
#[allow(clippy::too_many_arguments)] // one for each of Python's
fn train(
    py: Python<'_>,
    documents: &Bound<'_, PyAny>,
    vocab_size: i64,
    pattern: &str,
    max_doc_chars: i64,
    max_chars: i64,
    threads: i64,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<Vec<u8>>> {
    let vocab_size =
        checked("vocab_size", vocab_size, 256..usize::MAX, "at least 256, one id for each byte")?;
    let limits = Limits {
        of_document: checked("max_doc_chars", max_doc_chars, 1..usize::MAX, "at least 1")?,
        in_all: checked("max_chars", max_chars, 1..usize::MAX, "at least 1")?,
    };
    let documents = strings_of("documents", documents)?;
    let pool = thread_pool(checked_threads(threads)?)?;
    let mut counts = WordCounts::new(Splitter::new(pattern)?, limits);
    for (index, document) in documents.enumerate() {
        if index % DOCUMENTS_PER_SIGNAL_CHECK == 0 {
            py.check_signals()?;
        }
        if counts.push(document?) {
            py.detach(|| counts.count(&pool))?;
        }
        if counts.is_full() {
            break;
        }
    }
    let poll = |done: usize| {
        Python::attach(|py| {
            py.check_signals()?;
            progress.as_ref().map_or(Ok(()), |call| call.call1(py, (done, vocab_size)).map(drop))
        })
    };
    py.detach(|| counts.into_tokens(vocab_size, &pool, poll))
}

/// Cut a text into the pieces that merges never cross; see rustbpe.pyi.
#[pyfunction]
#[pyo3(signature = (text, pattern=GPT4_PATTERN))]
fn split(text: &Bound<'_, PyString>, pattern: &str) -> PyResult<Vec<String>> {
    let text = text_of(text)?;
    Ok(Splitter::new(pattern)?.split(&text)?.into_iter().map(str::to_owned).collect())
}

/// `ints` holds the Python integer of every id: to count one more reference is faster than to make one.
#[pyclass(frozen, name = "Encoder", module = "rustbpe")]
struct PyEncoder {
    core: Encoder,
    ints: Vec<Py<PyInt>>,
}

#[pymethods]
impl PyEncoder {
    #[new]
    #[pyo3(signature = (tokens, pattern=GPT4_PATTERN))]
    fn new(py: Python<'_>, tokens: Vec<Vec<u8>>, pattern: &str) -> PyResult<Self> {
        let core = py.detach(|| Encoder::new(tokens, pattern))?;
        let ints = (0..core.n_tokens()).map(|id| id.into_pyobject(py).map(Bound::unbind));
        Ok(Self { ints: ints.collect::<Result<_, _>>()?, core })
    }

    #[getter]
    fn n_tokens(&self) -> usize {
        self.core.n_tokens()
    }

    fn encode<'py>(&self, py: Python<'py>, text: &Bound<'_, PyString>) -> PyResult<Bound<'py, PyList>> {
        let text = text_of(text)?;
        self.list(py, &py.detach(|| self.core.encode(&text))?)
    }

    #[pyo3(signature = (texts, threads=0))]
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        threads: i64,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut rows = Vec::new();
        let mut begun = Vec::new(); // of a text that goes on in the next block
        self.batch(py, texts, threads, |block| {
            let mut start = 0;
            Python::attach(|py| {
                for &end in &block.ends {
                    let ids = &block.ids[std::mem::replace(&mut start, end)..end];
                    begun.extend_from_slice(ids);
                    rows.push(self.list(py, if begun.len() > ids.len() { &begun } else { ids })?.unbind());
                    begun.clear();
                }
                begun.extend_from_slice(&block.ids[start..]);
                Ok(())
            })
        })?;
        PyList::new(py, rows)
    }

    #[pyo3(signature = (texts, threads=0, itemsize=4))]
    fn encode_batch_flat<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        threads: i64,
        itemsize: i64,
    ) -> PyResult<(Bound<'py, PyByteArray>, Bound<'py, PyByteArray>)> {
        let n_tokens = self.core.n_tokens();
        if !matches!(itemsize, 2 | 4) || (itemsize == 2 && n_tokens > 1 << 16) {
            let legal = format!("must be 4, or 2 for at most 65,536 tokens (here {n_tokens})");
            return Err(PyValueError::new_err(format!("itemsize = {itemsize}: {legal}")));
        }
        let (mut ids, mut offsets) = (Vec::new(), vec![0]);
        self.batch(py, texts, threads, |block| {
            let n_ids = ids.len() / itemsize as usize;
            offsets.extend(block.ends.iter().map(|&end| (n_ids + end) as u64));
            match itemsize {
                2 => ids.extend(block.ids.iter().flat_map(|&id| (id as u16).to_ne_bytes())),
                _ => ids.extend(block.ids.iter().flat_map(|&id| id.to_ne_bytes())),
            }
            Ok(())
        })?;
        let offsets: Vec<u8> = offsets.into_iter().flat_map(u64::to_ne_bytes).collect();
        let (ids, offsets) = (PyByteArray::new(py, &ids), PyByteArray::new(py, &offsets));
        Ok((ids, offsets))
    }

    fn stream(slf: Py<Self>) -> PyStream {
        PyStream { encoder: slf, stream: Mutex::default() }
    }

    fn decode_bytes<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = ids_of(ids)?;
        Ok(PyBytes::new(py, &py.detach(|| self.core.decode(&ids))?))
    }

    fn decode_batch<'py>(
        &self,
        py: Python<'py>,
        rows: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        rows.try_iter()?.map(|ids| self.decode_bytes(py, &ids?)).collect()
    }
}

impl PyEncoder {
    fn list<'py>(&self, py: Python<'py>, ids: &[u32]) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, ids.iter().map(|&id| self.ints[id as usize].bind(py)))
    }

    /// Calls `each` with the blocks in order, the GIL released.
    fn batch(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        threads: i64,
        each: impl FnMut(&Block) -> PyResult<()> + Send,
    ) -> PyResult<()> {
        let texts = strings_of("texts", texts)?.collect::<PyResult<Vec<_>>>()?;
        let threads = checked_threads(threads)?;
        py.detach(|| self.core.encode_batch(&texts, threads, each))
    }
}

fn ids_of(ids: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    let py = ids.py();
    let ids = ids.try_iter()?.map(|id| id?.extract::<i64>()).collect::<PyResult<Vec<_>>>();
    ids.map_err(|e| match e.is_instance_of::<PyOverflowError>(py) {
        true => PyValueError::new_err("unknown token id: beyond 64 bits"),
        false => e,
    })
}

/// Text that arrives bit by bit; see rustbpe.pyi.
#[pyclass(frozen, name = "Stream", module = "rustbpe")]
struct PyStream {
    encoder: Py<PyEncoder>,
    stream: Mutex<Stream>,
}

#[pymethods]
impl PyStream {
    fn push(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<Vec<u32>> {
        let text = text_of(text)?;
        self.with(py, |stream, encoder| stream.push(encoder, &text))
    }

    fn finish(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.with(py, Stream::finish)
    }
}

impl PyStream {
    fn with(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Stream, &Encoder) -> Result<Vec<u32>, Error> + Send,
    ) -> PyResult<Vec<u32>> {
        let encoder = &self.encoder.get().core;
        let ids = py.detach(|| {
            // Only a panic in a call could poison the lock, and what waits is then still whole text.
            let mut stream = self.stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            work(&mut stream, encoder)
        });
        Ok(ids?)
    }
}

#[pymodule]
fn rustbpe(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("GPT4_PATTERN", GPT4_PATTERN)?;
    let patterns = PyDict::new(module.py());
    NAMED.iter().try_for_each(|(name, pattern)| patterns.set_item(name, pattern))?;
    module.add("PATTERNS", patterns)?;
    module.add_class::<PyEncoder>()?;
    module.add_class::<PyStream>()?;
    module.add_function(wrap_pyfunction!(train, module)?)?;
    module.add_function(wrap_pyfunction!(split, module)?)
}

//! age files that are too large for memory: written and read as streams, and spools, which keep
//! what has no known size yet on disk without ever being readable there.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use super::agefile::{Recipients, stanzas};
use super::error::VaultError;
use super::identity::Keyring;

/// How much of a file is read to learn who it is for, in bytes.
const HEADER: u64 = 64 << 10;

/// Encrypts what is written to it. [`Sealing::finish`] must be called, or the file does not open.
pub struct Sealing<W: Write>(age::stream::StreamWriter<W>);

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Sealing<W> {
    /// Writes the end.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> std::io::Result<W> {
        self.0.finish()
    }
}

impl Recipients {
    /// Encrypts to all of them as it is written: a binary age file.
    ///
    /// # Errors
    /// If there are none, or the header cannot be written.
    pub fn seal<W: Write>(&self, output: W, recipients_file: &Path) -> Result<Sealing<W>, VaultError> {
        let fail = |reason: String| VaultError::Recipients { file: recipients_file.to_owned(), reason };
        if self.is_empty() {
            return Err(fail("names no recipient".to_owned()));
        }
        let encryptor = age::Encryptor::with_recipients(self.keys()).map_err(|error| fail(format!("cannot be used: {error}")))?;
        encryptor.wrap_output(output).map(Sealing).map_err(|error| fail(format!("cannot be used: {error}")))
    }
}

/// Opens an age file, binary or armored, for reading as a stream.
///
/// # Errors
/// A missing or wrong identity and a broken file are told apart.
pub fn open_file(path: &Path, keyring: &Keyring) -> Result<impl Read + use<>, VaultError> {
    let open = || File::open(path).map_err(|error| VaultError::io("read", path, &error));
    let mut header = Vec::new();
    open()?.take(HEADER).read_to_end(&mut header).map_err(|error| VaultError::io("read", path, &error))?;
    let stanzas = stanzas(&header, path)?;
    let corrupted = |reason: String| Some(VaultError::Corrupted { file: path.to_owned(), reason });
    keyring.identities()?.open(&stanzas, path, |keys| {
        let input = age::armor::ArmoredReader::new(BufReader::new(open().map_err(Some)?));
        let decryptor = age::Decryptor::new_buffered(input).map_err(|error| corrupted(error.to_string()))?;
        match decryptor.decrypt(keys.iter().map(|key| &**key as &dyn age::Identity)) {
            Ok(reader) => Ok(reader),
            Err(age::DecryptError::NoMatchingKeys) => Err(None),
            Err(error) => Err(corrupted(error.to_string())),
        }
    })
}

/// A nameless temporary file under a key that exists in memory only.
pub struct Spool {
    key: age::x25519::Identity,
    writer: age::stream::StreamWriter<BufWriter<File>>,
    len: u64,
}

impl Spool {
    /// An empty spool on the disk of this directory.
    ///
    /// # Errors
    /// If there can be no file.
    pub fn new(directory: &Path) -> std::io::Result<Self> {
        let key = age::x25519::Identity::generate();
        let file = BufWriter::new(tempfile::tempfile_in(directory)?);
        let public = key.to_public();
        let encryptor = age::Encryptor::with_recipients(std::iter::once(&public as &dyn age::Recipient)).map_err(std::io::Error::other)?;
        Ok(Self { key, writer: encryptor.wrap_output(file)?, len: 0 })
    }

    /// How many bytes were written.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends writing and reads from the beginning.
    ///
    /// # Errors
    /// If the file cannot be written or read.
    pub fn read_back(self) -> std::io::Result<impl Read + use<>> {
        let mut file = self.writer.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        let decryptor = age::Decryptor::new_buffered(BufReader::new(file)).map_err(std::io::Error::other)?;
        decryptor.decrypt(std::iter::once(&self.key as &dyn age::Identity)).map_err(std::io::Error::other)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_gives_back_what_it_took() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path()).unwrap();
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        spool.write_all(&content).unwrap();
        assert_eq!(spool.len(), content.len() as u64);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
        let mut back = Vec::new();
        spool.read_back().unwrap().read_to_end(&mut back).unwrap();
        assert!(back == content);
    }
}

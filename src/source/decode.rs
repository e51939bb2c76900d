//! Undoes gzip (RFC 1952) and zstd (RFC 8878), told by their first bytes: several members or frames in a row, and one
//! compression inside another. Everything that could be decoded before a defect is given out before the error.

use std::io::{self, BufRead, ErrorKind, Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Compressions that may stand in each other.
const MAX_LAYERS: usize = 2;
/// The largest window a zstd frame may ask for: 2^27 bytes, 128 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
const CHUNK_BYTES: usize = 64 << 10;

/// Wraps `reader` so that it yields the text.
pub(super) fn decode<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut layer: Box<dyn Read + 'a> = Box::new(reader);
    for _ in 0..MAX_LAYERS {
        let mut input = Peek::new(layer);
        let head = input.peek(4)?;
        layer = match head {
            [0x1f, 0x8b, ..] => Box::new(Gzip::new(input)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Box::new(Named { name: "zstd", reader: decoder })
            }
            _ => return Ok(Box::new(input)),
        };
    }
    Ok(layer)
}

/// Says in the error which compression is broken.
struct Named<R> {
    name: &'static str,
    reader: R,
}

impl<R: Read> Read for Named<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.reader.read(target).map_err(|error| match error.kind() {
            ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, format!("the {} data is damaged or cut off: {error}", self.name)),
        })
    }
}

/// A buffered reader that can look ahead. An error waits until what came before it is read.
struct Peek<R> {
    reader: R,
    bytes: Vec<u8>,
    start: usize,
    failure: Option<io::Error>,
    is_at_end: bool,
}

impl<R: Read> Peek<R> {
    const fn new(reader: R) -> Self {
        Self { reader, bytes: Vec::new(), start: 0, failure: None, is_at_end: false }
    }

    /// The next bytes: `length` of them or more, fewer only at the end.
    fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        while self.bytes.len() - self.start < length && !self.is_at_end {
            self.bytes.drain(..self.start);
            self.start = 0;
            let filled = self.bytes.len();
            self.bytes.resize(filled + CHUNK_BYTES, 0);
            let result = self.reader.read(&mut self.bytes[filled..]);
            self.bytes.truncate(filled + result.as_ref().map_or(0, |count| *count));
            match result {
                Ok(count) => self.is_at_end = count == 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    self.is_at_end = true;
                }
            }
        }
        if self.bytes.len() == self.start
            && let Some(failure) = self.failure.take()
        {
            return Err(failure);
        }
        Ok(&self.bytes[self.start..])
    }
}

impl<R: Read> BufRead for Peek<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.peek(1)
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
    }
}

impl<R: Read> Read for Peek<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.bytes.len() == self.start && self.failure.is_none() && !self.is_at_end && target.len() >= CHUNK_BYTES {
            // Nothing was looked at ahead: no need for a second copy.
            return self.reader.read(target);
        }
        let source = self.fill_buf()?;
        let length = source.len().min(target.len());
        target[..length].copy_from_slice(&source[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// A gzip stream of any number of members. Unlike `flate2`'s reader it gives out what was decoded right before damage.
struct Gzip<R> {
    input: Peek<R>,
    inflate: Decompress,
    checksum: Crc,
    is_in_member: bool,
    failure: Option<io::Error>,
}

impl<R: Read> Gzip<R> {
    fn new(input: Peek<R>) -> Self {
        Self { input, inflate: Decompress::new(false), checksum: Crc::new(), is_in_member: false, failure: None }
    }

    /// Reads the next member's header; `false` at the end of the stream.
    fn begin_member(&mut self) -> io::Result<bool> {
        loop {
            match self.input.peek(2)? {
                [] => return Ok(false),
                [0x1f, 0x8b, ..] => break,
                // Padding with zeros (tapes, block devices) is no damage.
                [0, ..] => self.input.consume(1),
                _ => return Err(damaged("something that is no gzip follows the compressed data")),
            }
        }
        let [_, _, method, flags, ..] = self.take::<10>()?;
        if method != 8 {
            return Err(damaged("its compression method is unknown"));
        }
        if flags & 4 != 0 {
            let length = usize::from(u16::from_le_bytes(self.take::<2>()?));
            for _ in 0..length {
                self.take::<1>()?;
            }
        }
        for flag in [8, 16] {
            while flags & flag != 0 && self.take::<1>()? != [0] {}
        }
        if flags & 2 != 0 {
            self.take::<2>()?;
        }
        self.inflate.reset(false);
        self.checksum.reset();
        Ok(true)
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.input.peek(N)?;
        let taken = bytes.first_chunk::<N>().copied().ok_or_else(cut_off)?;
        self.input.consume(N);
        Ok(taken)
    }

    /// Inflates into `target`: how much, and whether the member is over.
    fn inflate(&mut self, target: &mut [u8]) -> io::Result<(usize, bool)> {
        loop {
            let source = self.input.fill_buf()?;
            let is_cut_off = source.is_empty();
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(source, target, FlushDecompress::None);
            let consumed = self.inflate.total_in() - in_before;
            let produced = self.inflate.total_out() - out_before;
            self.input.consume(usize::try_from(consumed).unwrap_or(0));
            let produced = usize::try_from(produced).unwrap_or(0);
            self.checksum.update(&target[..produced]);
            match status {
                Err(error) => self.failure = Some(damaged(&error.to_string())),
                Ok(Status::StreamEnd) => return Ok((produced, true)),
                Ok(_) if produced == 0 && is_cut_off => return Err(cut_off()),
                Ok(_) if produced == 0 && consumed == 0 => return Err(damaged("it makes no progress")),
                Ok(_) if produced == 0 => continue,
                Ok(_) => {}
            }
            return Ok((produced, false));
        }
    }

    fn end_member(&mut self) -> io::Result<()> {
        let trailer = self.take::<8>()?;
        let ([sum, length], _) = trailer.as_chunks::<4>() else { return Err(cut_off()) };
        if u32::from_le_bytes(*sum) != self.checksum.sum() || u32::from_le_bytes(*length) != self.checksum.amount() {
            return Err(damaged("its checksum is wrong, so the last messages read from it may be wrong"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if target.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if !self.is_in_member {
                if !self.begin_member()? {
                    return Ok(0);
                }
                self.is_in_member = true;
            }
            let (produced, is_over) = self.inflate(target)?;
            if is_over {
                self.is_in_member = false;
                self.failure = self.end_member().err();
            }
            if produced > 0 {
                return Ok(produced);
            }
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the gzip data is damaged: {what}"))
}

fn cut_off() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the gzip data is cut off")
}

//! Arrays as numpy.savez writes them: .npy (format 1.0) in a zip without compression.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes arrays to one file, in the order of the calls of add.
pub struct Writer {
    out: BufWriter<File>,
    offset: u64,
    directory: Vec<u8>,
    entries: u16,
}

impl Writer {
    pub fn create(path: &Path) -> io::Result<Self> {
        let out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self { out, offset: 0, directory: Vec::new(), entries: 0 })
    }

    /// Adds an array in C order; dtype is numpy's, such as "<f4".
    pub fn add(&mut self, name: &str, dtype: &str, shape: &[usize], data: &[u8]) -> io::Result<()> {
        let header = npy_header(dtype, shape);
        let size = (header.len() + data.len()) as u64;
        if self.offset + size > u64::from(u32::MAX) - (1 << 16) {
            return Err(io::Error::other(format!("{name}: more than 4 GB of features")));
        }
        let crc = !crc32(crc32(!0, &header), data);
        let file = format!("{name}.npy");
        // Local file header (APPNOTE.TXT 4.3.7): version 2.0, no flags, stored, 1980-01-01.
        let mut common = Vec::new();
        for field in [20u16, 0, 0, 0, 0x21] {
            common.extend(field.to_le_bytes());
        }
        for field in [crc, size as u32, size as u32] {
            common.extend(field.to_le_bytes());
        }
        common.extend((file.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        self.out.write_all(&0x0403_4b50u32.to_le_bytes())?;
        self.out.write_all(&common)?;
        self.out.write_all(file.as_bytes())?;
        self.out.write_all(&header)?;
        self.out.write_all(data)?;
        // Central directory header (4.3.12).
        self.directory.extend(0x0201_4b50u32.to_le_bytes());
        self.directory.extend(20u16.to_le_bytes());
        self.directory.extend(&common);
        self.directory.extend([0; 10]); // comment, disk, attributes
        self.directory.extend((self.offset as u32).to_le_bytes());
        self.directory.extend(file.as_bytes());
        self.offset += 4 + common.len() as u64 + file.len() as u64 + size;
        self.entries += 1;
        Ok(())
    }

    /// Adds texts, as numpy keeps them: UTF-32, filled up with zeros.
    pub fn add_texts(&mut self, name: &str, texts: &[String]) -> io::Result<()> {
        let width = texts.iter().map(|t| t.chars().count()).max().unwrap_or(0).max(1);
        let mut data = Vec::with_capacity(texts.len() * width * 4);
        for text in texts {
            let end = data.len() + width * 4;
            data.extend(text.chars().flat_map(|c| (c as u32).to_le_bytes()));
            data.resize(end, 0);
        }
        self.add(name, &format!("<U{width}"), &[texts.len()], &data)
    }

    /// Writes the directory; without it there is no file.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&self.directory)?;
        self.out.write_all(&0x0605_4b50u32.to_le_bytes())?;
        for field in [0, 0, self.entries, self.entries] {
            self.out.write_all(&field.to_le_bytes())?;
        }
        self.out.write_all(&(self.directory.len() as u32).to_le_bytes())?;
        self.out.write_all(&(self.offset as u32).to_le_bytes())?;
        self.out.write_all(&0u16.to_le_bytes())?;
        self.out.flush()
    }
}

/// numpy/lib/format.py: magic, version, length, a Python literal filled to 64 bytes.
fn npy_header(dtype: &str, shape: &[usize]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sizes}), }}");
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

/// CRC-32 of zip (polynomial 0xEDB88320), continued from a state; both are inverted.
fn crc32(state: u32, data: &[u8]) -> u32 {
    let mut table = [[0u32; 256]; 8];
    for (n, entry) in table[0].iter_mut().enumerate() {
        *entry = n as u32;
        for _ in 0..8 {
            *entry = if *entry & 1 == 1 { 0xEDB8_8320 ^ (*entry >> 1) } else { *entry >> 1 };
        }
    }
    for n in 0..256 {
        for k in 1..8 {
            let before = table[k - 1][n];
            table[k][n] = table[0][(before & 0xFF) as usize] ^ (before >> 8);
        }
    }
    let mut crc = state;
    let mut chunks = data.chunks_exact(8);
    for chunk in &mut chunks {
        let low = crc ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let mut next = 0;
        for (k, byte) in low.to_le_bytes().into_iter().chain(chunk[4..].iter().copied()).enumerate()
        {
            next ^= table[7 - k][byte as usize];
        }
        crc = next;
    }
    for byte in chunks.remainder() {
        crc = table[0][((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ (crc >> 8);
    }
    crc
}

/// The nearest half-precision number, ties to even (IEEE 754).
pub fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7FFF_FFFF;
    if magnitude >= 0x7F80_0000 {
        return sign | 0x7C00 | if magnitude > 0x7F80_0000 { 0x200 } else { 0 };
    }
    if magnitude >= 0x477F_F000 {
        return sign | 0x7C00; // rounds beyond 65504
    }
    if magnitude < 0x3880_0000 {
        // Subnormal: the number of 2^-24 steps.
        let steps = f32::from_bits(magnitude) * 16_777_216.0;
        return sign | steps.round_ties_even() as u16;
    }
    let rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_text() {
        assert_eq!(!crc32(!0, b"123456789"), 0xCBF4_3926); // the catalogue's check value
        assert_eq!(crc32(crc32(!0, b"1234567"), b"89"), crc32(!0, b"123456789"));
    }

    #[test]
    fn halves() {
        for (value, want) in [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3C00),
            (-2.0, 0xC000),
            (65504.0, 0x7BFF),
            (65520.0, 0x7C00),
            (2048.0 + 1.0, 0x6800),
            (2048.0 + 3.0, 0x6802),
            (f32::INFINITY, 0x7C00),
            (5.960_464_5e-8, 0x0001),
            (6.103_515_6e-5, 0x0400),
            (0.333_333_34, 0x3555),
        ] {
            assert_eq!(half(value), want, "{value}");
        }
        assert!(half(f32::NAN) & 0x7C00 == 0x7C00 && half(f32::NAN) & 0x3FF != 0);
    }

    #[test]
    fn headers_are_aligned() {
        for shape in [&[][..], &[3], &[3, 4, 5]] {
            assert_eq!(npy_header("<f2", shape).len() % 64, 0);
        }
    }
}

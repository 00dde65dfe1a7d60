//! Drawings in, small bitmaps out: the first step of the pipeline, and what turns an
//! uploaded drawing into an instance of the model.
//!
//!     render-drawings --drawings FILE_OR_FOLDER --bitmaps FILE.jsonl [--size 32]

mod bitmap;
mod source;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::exit;
use std::thread;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;

use source::Drawing;

struct Options {
    drawings: PathBuf,
    bitmaps: PathBuf,
    size: u32,
}

fn main() {
    let outcome = options().and_then(|options| run(&options));
    if let Err(error) = outcome {
        eprintln!("render-drawings: {error}");
        exit(1);
    }
}

fn options() -> Result<Options, String> {
    let (mut drawings, mut bitmaps, mut size) = (None, None, 32);
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("{name} has no value"))?;
        match name.as_str() {
            "--drawings" => drawings = Some(PathBuf::from(value)),
            "--bitmaps" => bitmaps = Some(PathBuf::from(value)),
            "--size" => {
                size = value.parse().ok().filter(|size| (8..=512).contains(size)).ok_or_else(
                    || format!("--size is {value:?}; it is a number of pixels from 8 to 512"),
                )?;
            }
            _ => {
                return Err(format!("there is no {name}; known are --drawings, --bitmaps, --size"));
            }
        }
    }
    Ok(Options {
        drawings: drawings.ok_or("--drawings names no file or folder")?,
        bitmaps: bitmaps.ok_or("--bitmaps names no file to write")?,
        size,
    })
}

fn run(options: &Options) -> Result<(), String> {
    let drawings = source::read(&options.drawings)?;
    let lines = render(&drawings, options.size);
    let file = File::create(&options.bitmaps)
        .map_err(|e| format!("{}: {e}", options.bitmaps.display()))?;
    let mut out = BufWriter::new(file);
    let (mut written, mut skipped) = (0, 0);
    for (drawing, line) in drawings.iter().zip(lines) {
        match line {
            Ok(line) => {
                writeln!(out, "{line}")
                    .map_err(|e| format!("{}: {e}", options.bitmaps.display()))?;
                written += 1;
            }
            Err(why) => {
                eprintln!("render-drawings: {} is left out: {why}", drawing.id());
                skipped += 1;
            }
        }
    }
    out.flush().map_err(|e| format!("{}: {e}", options.bitmaps.display()))?;
    if written == 0 {
        return Err(format!("{} has no drawing", options.drawings.display()));
    }
    eprintln!("{written} drawings of {0} x {0} pixels, {skipped} left out", options.size);
    Ok(())
}

/// One line for each drawing, in their order, made by as many threads as there are cores.
fn render(drawings: &[Drawing], size: u32) -> Vec<Result<String, String>> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let share = drawings.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = drawings
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(|d| line(d, size)).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a thread that renders")).collect()
    })
}

/// A drawing as an instance: the pixels as a tensor of bytes, and beside them what the model
/// is not given.
fn line(drawing: &Drawing, size: u32) -> Result<String, String> {
    let pixels = bitmap::ink(&drawing.svg, size)?;
    let instance = json!({
        "id": drawing.id(),
        "family": drawing.family,
        "name": drawing.name,
        "svg": drawing.svg,
        "pixels": {"b64": BASE64_STANDARD.encode(pixels)},
    });
    Ok(instance.to_string())
}

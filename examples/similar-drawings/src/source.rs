//! Where drawings are: SVG files, npm packages of them, and folders of either.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

/// The folders of a package that hold its drawings, each once.
const FOLDERS: [&str; 2] = ["icons", "svg"];
/// The largest drawing that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// A drawing and what it is called.
pub struct Drawing {
    pub family: String,
    pub name: String,
    pub svg: String,
}

impl Drawing {
    /// Its name among all drawings.
    pub fn id(&self) -> String {
        format!("{}/{}", self.family, self.name)
    }
}

/// Reads all drawings of a file or a folder, in the order of their ids.
pub fn read(path: &Path) -> Result<Vec<Drawing>, String> {
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut found = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(told)? {
            file(&entry.map_err(told)?.path(), &mut found)?;
        }
    } else {
        file(path, &mut found)?;
    }
    found.sort_by(|a, b| (&a.family, &a.name).cmp(&(&b.family, &b.name)));
    found.dedup_by(|a, b| a.family == b.family && a.name == b.name);
    Ok(found)
}

/// Adds the drawings of one file; what is neither a drawing nor a package is passed over.
fn file(path: &Path, found: &mut Vec<Drawing>) -> Result<(), String> {
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match path.extension().and_then(|e| e.to_str()) {
        Some("svg") => {
            let svg = text(File::open(path).map_err(told)?).map_err(told)?;
            found.push(Drawing { family: "own".to_owned(), name: stem, svg });
        }
        Some("tgz") => package(File::open(path).map_err(told)?, &stem, found).map_err(told)?,
        _ => {}
    }
    Ok(())
}

/// Adds the drawings of an npm package. Where it has several styles, each in a folder of
/// its own, the style is part of the name.
fn package(file: File, family: &str, found: &mut Vec<Drawing>) -> std::io::Result<()> {
    for entry in tar::Archive::new(GzDecoder::new(file)).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(name) = name(&path) else { continue };
        found.push(Drawing { family: family.to_owned(), name, svg: text(entry)? });
    }
    Ok(())
}

/// What a file of a package is called: `package/icons/filled/heart.svg` is `heart-filled`.
fn name(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    let stem = parts.last()?.strip_suffix(".svg")?;
    match parts.as_slice() {
        [_, folder, _] if FOLDERS.contains(folder) => Some(stem.to_owned()),
        [_, folder, style, _] if FOLDERS.contains(folder) => Some(format!("{stem}-{style}")),
        _ => None,
    }
}

fn text(from: impl Read) -> std::io::Result<String> {
    let mut svg = String::new();
    if from.take(LARGEST + 1).read_to_string(&mut svg)? as u64 > LARGEST {
        return Err(std::io::Error::other(format!("a drawing has more than {LARGEST} bytes")));
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (path, want) in [
            ("package/icons/heart.svg", Some("heart")),
            ("package/icons/filled/heart.svg", Some("heart-filled")),
            ("package/svg/heart.svg", Some("heart")),
            ("package/categories/outline/Arrows/heart.svg", None),
            ("package/font/heart.svg", None),
            ("package/icons/heart.png", None),
        ] {
            assert_eq!(name(Path::new(path)).as_deref(), want, "{path}");
        }
    }
}

//! A drawing as the ink of its pixels.

use resvg::tiny_skia::{Pixmap, PremultipliedColorU8, Transform};
use resvg::usvg::{Options, Tree};

/// Pixels that stay free at each edge.
const MARGIN: f32 = 1.0;

/// Pixels of a side when the drawing is rendered to see where its ink is.
const LOOK: u32 = 128;

/// A part of the drawing's plane.
#[derive(Clone, Copy)]
struct Area {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

/// Renders a drawing, moved and scaled so that its ink fills a square; 0 is paper, 255 is
/// ink.
///
/// Families leave different margins around what they draw. Ink is what is dark: paper may
/// be transparent or painted white.
pub fn ink(svg: &str, size: u32) -> Result<Vec<u8>, String> {
    let tree = Tree::from_str(svg, &Options::default()).map_err(|e| e.to_string())?;
    let all = tree.root().abs_stroke_bounding_box();
    let all = Area { x: all.x(), y: all.y(), width: all.width(), height: all.height() };
    let inked = inked(&tree, all).ok_or("it draws nothing")?;
    let pixels = render(&tree, inked, size, MARGIN).ok_or("it draws nothing")?;
    Ok(pixels)
}

/// The area of the ink, to a pixel of a first look.
fn inked(tree: &Tree, all: Area) -> Option<Area> {
    let pixels = render(tree, all, LOOK, 0.0)?;
    let side = LOOK as usize;
    let dark = |i: usize| pixels[i] > 0;
    let row = |y: &usize| (0..side).any(|x| dark(y * side + x));
    let column = |x: &usize| (0..side).any(|y| dark(y * side + x));
    let (top, bottom) = ((0..side).find(row)?, (0..side).rfind(row)?);
    let (left, right) = ((0..side).find(column)?, (0..side).rfind(column)?);
    let longest = all.width.max(all.height);
    let unit = longest / LOOK as f32;
    Some(Area {
        x: all.x - (longest - all.width) / 2.0 + left as f32 * unit,
        y: all.y - (longest - all.height) / 2.0 + top as f32 * unit,
        width: (right + 1 - left) as f32 * unit,
        height: (bottom + 1 - top) as f32 * unit,
    })
}

/// The ink of an area, centred in a square; none where there is no area.
fn render(tree: &Tree, area: Area, size: u32, margin: f32) -> Option<Vec<u8>> {
    let longest = area.width.max(area.height);
    if !(longest > 0.0 && longest.is_finite()) {
        return None;
    }
    let scale = (size as f32 - 2.0 * margin) / longest;
    let shift = |from: f32, length: f32| (size as f32 - length * scale) / 2.0 - from * scale;
    let (right, down) = (shift(area.x, area.width), shift(area.y, area.height));
    let fit = Transform::from_row(scale, 0.0, 0.0, scale, right, down);
    let mut pixmap = Pixmap::new(size, size)?;
    resvg::render(tree, fit, &mut pixmap.as_mut());
    Some(pixmap.pixels().iter().map(|p| p.alpha().saturating_sub(light(*p))).collect())
}

/// How bright a pixel is. Colours are premultiplied: what is missing to the alpha is
/// darkness.
fn light(p: PremultipliedColorU8) -> u8 {
    let parts = [(2126, p.red()), (7152, p.green()), (722, p.blue())];
    let sum: u32 = parts.iter().map(|(weight, part)| weight * u32::from(*part)).sum();
    (sum / 10_000) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(body: &str) -> String {
        format!(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">{body}</svg>"#)
    }

    #[test]
    fn fits_what_is_drawn() {
        let small = ink(&svg(r#"<path d="M2 3h4v4h-4z"/>"#), 16).unwrap();
        let large = ink(&svg(r#"<path d="M1 1h20v20h-20z"/>"#), 16).unwrap();
        assert_eq!(small, large);
        assert_eq!((large[0], large[17], large[8 * 16 + 8], large[255]), (0, 255, 255, 0));
    }

    #[test]
    fn keeps_proportions() {
        let wide = ink(&svg(r#"<path d="M0 0h20v10h-20z"/>"#), 16).unwrap();
        let inked = wide.iter().filter(|v| **v > 127).count();
        assert!((90..=112).contains(&inked), "{inked}");
    }

    #[test]
    fn ink_is_what_is_dark() {
        let paper = r#"<rect width="24" height="24" fill="white"/>"#;
        let drawn = r#"<path d="M8 8h9v9h-9z" stroke="black" stroke-width="3" fill="none"/>"#;
        let bare = ink(&svg(drawn), 24).unwrap();
        let on_white = ink(&svg(&format!("{paper}{drawn}")), 24).unwrap();
        assert_eq!((on_white[0], on_white[3 * 24 + 3], on_white[12 * 24 + 12]), (0, 255, 0));
        let apart = |(a, b): (&u8, &u8)| a.abs_diff(*b) > 64;
        assert!(bare.iter().zip(&on_white).filter(|(a, b)| apart((a, b))).count() < 24);
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(ink("no svg", 16).is_err());
        assert!(ink(&svg(""), 16).is_err());
        assert!(ink(&svg(r#"<path d="M0 0h4v4z" fill="white"/>"#), 16).is_err());
    }
}

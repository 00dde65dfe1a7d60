//! What a ranking is fitted to: the orders of a window, with unseen suppliers beside
//! them.

use std::collections::BTreeSet;

use crate::features::Moment;
use crate::orders::Orders;
use crate::totals::Totals;

const NEGATIVES: usize = 40;

/// Groups to fit a ranking to: rows of features, a label each, the sizes of groups.
#[derive(Default)]
pub struct Examples {
    pub x: Vec<u16>, // half precision, a row after the other
    pub y: Vec<i8>,
    pub groups: Vec<i64>,
}

impl Examples {
    /// Adds one group: the window's orders, with unseen suppliers beside them.
    pub fn add(
        &mut self,
        orders: &Orders,
        totals: &Totals,
        moment: Moment,
        all: &BTreeSet<usize>,
        block: &[u16],
        own: &[u16],
    ) {
        let suppliers = orders.suppliers.len();
        let mut label = vec![0i8; suppliers];
        for row in moment.start..moment.end {
            label[orders.supplier[row]] = 1 + i8::from(orders.liked[row]);
        }
        let unseen: Vec<usize> =
            (0..suppliers).filter(|s| label[*s] == 0 && !all.contains(s)).collect();
        let half = (NEGATIVES / 2).min(unseen.len());
        let draw = |stream: u64, s: usize| uniform(stream, [moment.buyer, moment.start, s]);
        let evenly = smallest(&unseen, half, |s| draw(0, s));
        // Exponential clocks: the chance to be early is as large as the weight.
        let by_orders =
            smallest(&unseen, half, |s| -draw(1, s).ln() / (f64::from(totals.orders[s]) + 1.0));
        let positives = (0..suppliers).filter(|s| label[*s] > 0);
        // Sorted, so that equal scores favour nobody.
        let rows: BTreeSet<usize> = positives.chain(evenly).chain(by_orders).collect();
        let width = block.len() / suppliers;
        for row in rows.iter().copied() {
            self.x.extend(&block[row * width..(row + 1) * width]);
            self.x.extend(own);
            self.y.push(label[row]);
        }
        self.groups.push(rows.len() as i64);
    }
}

/// The count of these with the smallest keys.
fn smallest(of: &[usize], count: usize, key: impl Fn(usize) -> f64) -> Vec<usize> {
    let mut keyed: Vec<(f64, usize)> = of.iter().map(|s| (key(*s), *s)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable
    keyed.into_iter().take(count).map(|(_, s)| s).collect()
}

/// A number in (0, 1] that depends on its place alone (SplitMix64), so that the
/// Python step draws the same ones.
fn uniform(stream: u64, place: [usize; 3]) -> f64 {
    let hash = place.iter().fold(mix(stream), |h, p| mix(h ^ *p as u64));
    ((hash >> 11) + 1) as f64 / (1u64 << 53) as f64
}

fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_fixed() {
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF); // SplitMix64's first number of seed 0
        let u = uniform(1, [2, 3, 4]);
        assert!(u > 0.0 && u <= 1.0 && u != uniform(0, [2, 3, 4]));
        assert_eq!(smallest(&[5, 6, 7], 2, |s| (7 - s) as f64), [7, 6]);
    }
}

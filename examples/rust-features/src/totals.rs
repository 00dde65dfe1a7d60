//! Running totals over everything ordered before the day at hand.

use std::collections::BTreeSet;

use crate::orders::Orders;

/// Running totals over everything ordered before the day at hand.
pub struct Totals {
    positive: f32,
    pub orders: Vec<f32>,
    pub liked: Vec<f32>,
    pub outcome: Vec<f32>,
    pub recent: Vec<f32>,
    pub in_group: Vec<Vec<Vec<f32>>>, // by column, group, supplier
    pub together: Together,
    pub liked_together: Together,
}

impl Totals {
    pub fn new(orders: &Orders, positive: f32) -> Self {
        let n = orders.suppliers.len();
        let group = |g: &Vec<usize>| vec![vec![0.0; n]; g.iter().max().map_or(0, |m| m + 1)];
        Self {
            positive,
            orders: vec![0.0; n],
            liked: vec![0.0; n],
            outcome: vec![0.0; n],
            recent: vec![0.0; n],
            in_group: orders.about_buyers.groups.iter().map(group).collect(),
            together: Together::new(orders.buyers.len(), n),
            liked_together: Together::new(orders.buyers.len(), n),
        }
    }

    /// Adds one day's orders.
    pub fn count(&mut self, orders: &Orders, rows: &[usize]) {
        for row in rows.iter().copied() {
            let (buyer, supplier) = (orders.buyer[row], orders.supplier[row]);
            self.orders[supplier] += 1.0;
            self.liked[supplier] += f32::from(u8::from(orders.liked[row]));
            self.outcome[supplier] += orders.outcome[row];
            self.recent[supplier] += 1.0;
            for (totals, group) in self.in_group.iter_mut().zip(&orders.about_buyers.groups) {
                totals[group[buyer]][supplier] += 1.0;
            }
            self.together.add(buyer, supplier);
            if orders.liked[row] {
                self.liked_together.add(buyer, supplier);
            }
        }
    }

    /// What an unknown supplier or buyer is taken for: the mean so far.
    pub fn usual(&self) -> f32 {
        let n: f32 = self.orders.iter().sum();
        if n > 0.0 { self.outcome.iter().sum::<f32>() / n } else { self.positive }
    }
}

/// How many buyers ordered from both of two suppliers.
pub struct Together {
    of: Vec<Vec<usize>>, // suppliers of a buyer
    suppliers: usize,
    counts: Vec<f32>,
}

impl Together {
    fn new(buyers: usize, suppliers: usize) -> Self {
        Self { of: vec![Vec::new(); buyers], suppliers, counts: vec![0.0; suppliers * suppliers] }
    }

    fn add(&mut self, buyer: usize, supplier: usize) {
        let mine = &mut self.of[buyer];
        if mine.contains(&supplier) {
            return;
        }
        for other in mine.iter().copied() {
            self.counts[supplier * self.suppliers + other] += 1.0;
            self.counts[other * self.suppliers + supplier] += 1.0;
        }
        self.counts[supplier * self.suppliers + supplier] += 1.0;
        mine.push(supplier);
    }

    /// Scores all suppliers by the ones of a history, both weighted.
    pub fn similar(&self, history: &BTreeSet<usize>, weight: &[f32]) -> Vec<f32> {
        let mut scores = vec![0.0; self.suppliers];
        for supplier in history.iter().copied() {
            let (own, at) = (weight[supplier], supplier * self.suppliers);
            for (score, count) in scores.iter_mut().zip(&self.counts[at..]) {
                *score += own * count;
            }
        }
        let total = (history.len() as f32).max(1.0);
        scores.iter().zip(weight).map(|(s, w)| 100.0 * s * w / total).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_pairs_once() {
        let mut together = Together::new(1, 3);
        for supplier in [0, 2, 0] {
            together.add(0, supplier);
        }
        assert_eq!(together.counts, [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]);
        let scores = together.similar(&BTreeSet::from([0]), &[1.0, 1.0, 0.5]);
        assert_eq!(scores, [100.0, 0.0, 50.0]);
    }
}

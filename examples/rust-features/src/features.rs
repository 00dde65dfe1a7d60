//! Describes (buyer, supplier) pairs by what was known before a moment; the same
//! features as the Python step `features` of supplier-recommendation, whose
//! documentation says what each means and why nothing leaks.

use std::collections::BTreeSet;

use crate::examples::Examples;
use crate::npz::half;
use crate::orders::{Orders, Part};
use crate::totals::Totals;

const WINDOW: usize = 10;
const WINDOWS: usize = 5;
const HALF_LIFE: f64 = 14.0;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Candidates,
    Validation,
    Train,
}

/// A buyer before the rows start..end.
#[derive(Clone, Copy)]
pub struct Moment {
    pub buyer: usize,
    pub start: usize,
    pub end: usize,
    kind: Kind,
}

pub struct Features {
    pub pair_names: Vec<String>,
    pub own_names: Vec<String>,
    pub pairs: Vec<u16>, // half precision: [buyer][supplier][pair name]
    pub owns: Vec<u16>,  // [buyer][own name]
    pub seen: Vec<u8>,   // [buyer][supplier]
    pub wanted: Vec<u8>,
    pub popularity: Vec<f32>,
    pub train: Examples,
    pub validation: Examples,
}

pub fn describe(orders: &Orders, positive: f32, predict: bool) -> Features {
    let mut features = Features::new(orders);
    let last_day = orders.day.iter().max().map_or(0, |d| d + 1);
    let mut by_day = vec![Vec::new(); last_day + 1];
    for moment in moments(orders, predict) {
        let open = moment.start < moment.end;
        by_day[if open { orders.day[moment.start] } else { last_day }].push(moment);
    }
    let mut rows_of = vec![Vec::new(); last_day + 1];
    for row in (0..orders.day.len()).filter(|r| orders.part[*r] != Part::Test) {
        rows_of[orders.day[row]].push(row);
    }
    let mut totals = Totals::new(orders, positive);
    for (moments, rows) in by_day.iter().zip(&rows_of) {
        for moment in moments {
            features.keep(orders, &totals, *moment);
        }
        let decay = 0.5f64.powf(1.0 / HALF_LIFE) as f32;
        totals.recent.iter_mut().for_each(|n| *n *= decay);
        totals.count(orders, rows);
    }
    features.popularity = totals.orders;
    features
}

fn moments(orders: &Orders, predict: bool) -> Vec<Moment> {
    let mut out = Vec::new();
    for buyer in 0..orders.buyers.len() {
        let (low, high) = (orders.first[buyer], orders.first[buyer + 1]);
        if predict {
            out.push(Moment { buyer, start: high, end: high, kind: Kind::Candidates });
            continue;
        }
        let rows = |part| (low..high).filter(move |r| orders.part[*r] == part);
        if let (Some(start), Some(last)) = (rows(Part::Test).next(), rows(Part::Test).next_back()) {
            out.push(Moment { buyer, start, end: last + 1, kind: Kind::Candidates });
        }
        let validation = (rows(Part::Validation).next(), rows(Part::Validation).next_back());
        if let (Some(start), Some(last)) = validation {
            out.push(Moment { buyer, start, end: last + 1, kind: Kind::Validation });
            for back in 1..=WINDOWS {
                if start >= back * WINDOW + low + WINDOW / 2 {
                    let start = start - back * WINDOW;
                    out.push(Moment { buyer, start, end: start + WINDOW, kind: Kind::Train });
                }
            }
        }
    }
    out
}

impl Features {
    fn new(orders: &Orders) -> Self {
        let numbers = &orders.about_suppliers.number_names;
        let mut pair_names: Vec<String> = ["log_orders", "quality", "liked_share", "recent_orders"]
            .map(|n| format!("supplier_{n}"))
            .into();
        pair_names.extend(numbers.iter().cloned());
        pair_names.extend(
            [
                "similar_to_orders",
                "similar_to_liked",
                "similar_to_recent",
                "tag_share",
                "tag_liked",
            ]
            .map(String::from),
        );
        pair_names.extend(numbers.iter().map(|n| format!("distance_{n}")));
        let columns = &orders.about_buyers.names;
        pair_names.extend(columns.iter().map(|n| format!("popularity_in_{n}")));
        let mut own_names: Vec<String> =
            ["orders", "mean_outcome", "liked_share"].map(String::from).into();
        own_names.extend(columns.iter().cloned());
        let (buyers, suppliers) = (orders.buyers.len(), orders.suppliers.len());
        Self {
            pairs: vec![0; buyers * suppliers * pair_names.len()],
            owns: vec![0; buyers * own_names.len()],
            seen: vec![1; buyers * suppliers],
            wanted: vec![0; buyers * suppliers],
            popularity: Vec::new(),
            train: Examples::default(),
            validation: Examples::default(),
            pair_names,
            own_names,
        }
    }

    /// Describes a moment, as candidates or as a group to fit to.
    fn keep(&mut self, orders: &Orders, totals: &Totals, moment: Moment) {
        let History { all, block, own } = history(orders, totals, moment);
        let suppliers = orders.suppliers.len();
        if moment.kind != Kind::Candidates {
            let into =
                if moment.kind == Kind::Train { &mut self.train } else { &mut self.validation };
            into.add(orders, totals, moment, &all, &block, &own);
            return;
        }
        let at = moment.buyer * suppliers;
        self.pairs[at * self.pair_names.len()..][..block.len()].copy_from_slice(&block);
        self.owns[moment.buyer * own.len()..][..own.len()].copy_from_slice(&own);
        for supplier in 0..suppliers {
            self.seen[at + supplier] = u8::from(all.contains(&supplier));
        }
        for row in (moment.start..moment.end).filter(|r| orders.liked[*r]) {
            self.wanted[at + orders.supplier[row]] = 1;
        }
    }
}

struct History {
    all: BTreeSet<usize>, // suppliers ordered from
    block: Vec<u16>,      // [supplier][pair name]
    own: Vec<u16>,
}

fn history(orders: &Orders, totals: &Totals, moment: Moment) -> History {
    let rows = orders.first[moment.buyer]..moment.start;
    let mine = &orders.supplier[rows.clone()];
    let all: BTreeSet<usize> = mine.iter().copied().collect();
    let likes: BTreeSet<usize> =
        rows.clone().filter(|r| orders.liked[*r]).map(|r| orders.supplier[r]).collect();
    let recent: BTreeSet<usize> = mine.iter().rev().take(WINDOW).copied().collect();
    let total = (all.len() as f32).max(1.0);
    let usual = totals.usual();
    let outcomes = &orders.outcome[rows];
    let mean =
        if mine.is_empty() { usual } else { outcomes.iter().sum::<f32>() / mine.len() as f32 };

    let mut columns: Vec<Vec<f32>> = vec![
        totals.orders.iter().map(|n| n.ln_1p()).collect(),
        totals
            .outcome
            .iter()
            .zip(&totals.orders)
            .map(|(o, n)| (o + 5.0 * usual) / (n + 5.0))
            .collect(),
        totals.liked.iter().zip(&totals.orders).map(|(l, n)| (l + 2.5) / (n + 5.0)).collect(),
        totals.recent.iter().map(|n| n.ln_1p()).collect(),
    ];
    let about = &orders.about_suppliers;
    columns.extend(about.numbers.iter().cloned());
    let damped =
        |counts: &[f32]| -> Vec<f32> { counts.iter().map(|n| 1.0 / (n + 5.0).sqrt()).collect() };
    let by_orders = damped(&totals.orders);
    columns.push(totals.together.similar(&all, &by_orders));
    columns.push(totals.liked_together.similar(&likes, &damped(&totals.liked)));
    columns.push(totals.together.similar(&recent, &by_orders));
    let tag_orders = tag_counts(orders, &all);
    let tag_likes = tag_counts(orders, &likes);
    let share: Vec<f32> = tag_orders.iter().map(|n| n / total).collect();
    let liked: Vec<f32> =
        tag_likes.iter().zip(&tag_orders).map(|(l, n)| (l + 1.0) / (n + 2.0)).collect();
    columns.push(by_tags(orders, &share));
    columns.push(by_tags(orders, &liked));
    for values in &about.numbers {
        let centre = all.iter().map(|s| values[*s]).sum::<f32>() / total;
        columns.push(values.iter().map(|v| (v - centre).abs()).collect());
    }
    for (in_group, group) in totals.in_group.iter().zip(&orders.about_buyers.groups) {
        let mine = &in_group[group[moment.buyer]];
        columns.push(mine.iter().zip(&totals.orders).map(|(g, n)| g / (n + 5.0)).collect());
    }

    let mut block = Vec::with_capacity(columns.len() * orders.suppliers.len());
    for supplier in 0..orders.suppliers.len() {
        block.extend(columns.iter().map(|c| half(c[supplier])));
    }
    let mut own = vec![half(all.len() as f32), half(mean), half(likes.len() as f32 / total)];
    own.extend(orders.about_buyers.values.iter().map(|v| half(v[moment.buyer])));
    History { all, block, own }
}

fn tag_counts(orders: &Orders, suppliers: &BTreeSet<usize>) -> Vec<f32> {
    let mut counts = vec![0.0; orders.about_suppliers.tag_count];
    for tag in suppliers.iter().flat_map(|s| &orders.about_suppliers.tags[*s]) {
        counts[*tag] += 1.0;
    }
    counts
}

/// The mean of a supplier's tags.
fn by_tags(orders: &Orders, values: &[f32]) -> Vec<f32> {
    let mean = |tags: &Vec<usize>| {
        let share = 1.0 / (tags.len() as f32).max(1.0);
        tags.iter().map(|t| values[*t] * share).sum()
    };
    orders.about_suppliers.tags.iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::parse;

    /// A history of one order a day: 40 of each of three buyers.
    fn orders(changed: bool) -> Orders {
        let mut text = String::from("buyer,supplier,outcome,time,supplier_genres,part\n");
        for (buyer, day) in (0..3).flat_map(|b| (0..40).map(move |d| (b, d))) {
            let supplier = (day * 7 + buyer * 3) % 53;
            let part = ["train", "train", "validation", "test"][day / 10];
            let outcome = if changed && part == "test" { 1 } else { 1 + supplier % 5 };
            let (time, genre) = (day * 86_400, supplier % 4);
            text += &format!("b{buyer},s{supplier},{outcome},{time},g{genre},{part}\n");
        }
        Orders::new(&parse(&text).unwrap(), 4.0, false).unwrap()
    }

    #[test]
    fn outcomes_of_the_test_part_change_no_feature() {
        let (before, after) =
            (describe(&orders(false), 4.0, false), describe(&orders(true), 4.0, false));
        assert!(
            before.pairs == after.pairs
                && before.owns == after.owns
                && before.popularity == after.popularity
        );
        assert!(before.train.x == after.train.x && before.validation.y == after.validation.y);
        assert!(before.wanted != after.wanted);
        assert_eq!((before.train.groups.len(), before.validation.groups.len()), (3, 3));
    }
}

//! What was struck by what, and what came of it: the table for the record.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Fault;
use super::oracle::Verdict;

/// One fault on one back end. The counts of a row are those of the whole runs in which the fault was one of several.
#[derive(Default)]
struct Row {
    struck: usize,
    events: usize,
    lost: usize,
    doubled: usize,
    disordered: usize,
    recovery: Vec<Duration>,
}

/// The sums over all runs.
#[derive(Default)]
pub struct Table {
    rows: BTreeMap<(&'static str, String), Row>,
}

impl Table {
    /// Adds one run on this back end: its faults with the times until all was well again, and the judgement.
    pub fn add(&mut self, back_end: &'static str, struck: &[(Fault, Duration)], verdict: &Verdict) {
        let mut counted = Vec::new();
        for (fault, recovery) in struck {
            let row = self.rows.entry((back_end, fault.name())).or_default();
            row.struck += 1;
            row.recovery.push(*recovery);
            if !counted.contains(fault) {
                counted.push(*fault);
                row.events += verdict.events;
                row.lost += verdict.lost;
                row.doubled += verdict.doubled;
                row.disordered += verdict.disordered;
            }
        }
    }

    /// In Markdown.
    pub fn print(&self) {
        println!(
            "| back end | fault | times | events in its runs | lost | doubled | out of order | well again: median | worst |"
        );
        println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        for ((back_end, fault), row) in &self.rows {
            let Row { struck, events, lost, doubled, disordered, recovery } = row;
            let mut recovery: Vec<f64> = recovery.iter().map(Duration::as_secs_f64).collect();
            recovery.sort_by(f64::total_cmp);
            let (median, worst) = (recovery[recovery.len() / 2], recovery[recovery.len() - 1]);
            println!(
                "| {back_end} | {fault} | {struck} | {events} | {lost} | {doubled} | {disordered} | {median:.2} s | {worst:.2} s |"
            );
        }
    }
}

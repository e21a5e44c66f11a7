//! Jobs that run on guests, above all migrations, from `virsh domjobinfo`: the figures of the usual exporter for the guests that
//! have a job, and of migrations what tells whether they will end: how fast the guest changes its memory, how fast that is
//! sent, which pass it is, how long the guest would stand still. Pure.

use super::super::{Family, Kind};
use crate::libvirt::Answer;

/// libvirt's words for kinds of jobs, by its numbers.
const KINDS: [&str; 6] = ["None", "Bounded", "Unbounded", "Completed", "Failed", "Cancelled"];

/// A line of `domjobinfo` as a metric.
struct Rule {
    key: &'static str,
    metric: &'static str,
    help: &'static str,
}

const fn rule(key: &'static str, metric: &'static str, help: &'static str) -> Rule {
    Rule { key, metric, help }
}

/// Of every job.
const JOB: [Rule; 11] = [
    rule("Time elapsed", "libvirt_domain_job_info_time_elapsed_seconds", "Time elapsed since the start of the job."),
    rule("Time remaining", "libvirt_domain_job_info_time_remaining_seconds", "Time left as libvirt estimates it."),
    rule("Data total", "libvirt_domain_job_info_data_total_bytes", "Data that the job has to move."),
    rule("Data processed", "libvirt_domain_job_info_data_processed_bytes", "Data that the job has moved."),
    rule("Data remaining", "libvirt_domain_job_info_data_remaining_bytes", "Data that the job has still to move."),
    rule("Memory total", "libvirt_domain_job_info_memory_total_bytes", "Memory that the job has to move."),
    rule("Memory processed", "libvirt_domain_job_info_memory_processed_bytes", "Memory that the job has moved."),
    rule(
        "Memory remaining",
        "libvirt_domain_job_info_memory_remaining_bytes",
        "Memory that the job has still to move.",
    ),
    rule("File total", "libvirt_domain_job_info_file_total_bytes", "Disk contents that the job has to move."),
    rule("File processed", "libvirt_domain_job_info_file_processed_bytes", "Disk contents that the job has moved."),
    rule(
        "File remaining",
        "libvirt_domain_job_info_file_remaining_bytes",
        "Disk contents that the job has still to move.",
    ),
];

/// Of migrations, on the host that the guest leaves.
const MIGRATION: [Rule; 4] = [
    rule("Memory bandwidth", "petrel_migration_bytes_per_second", "Memory that the migration sends in a second."),
    rule("Iteration", "petrel_migration_iteration", "Which pass over the guest's memory the migration makes."),
    rule(
        "Expected downtime",
        "petrel_migration_expected_downtime_seconds",
        "How long the guest would stand still if the migration ended now.",
    ),
    rule(
        "Postcopy requests",
        "petrel_migration_postcopy_requests",
        "Pages that the guest asked for from its old host after it moved.",
    ),
];

/// Series of the guests that have a job, from each guest's name, UUID and answer.
pub(super) fn families<'a>(guests: impl Iterator<Item = ((&'a str, &'a str), &'a Answer)>) -> Vec<Family> {
    let gauge = |metric: &'static str, help: &'static str| Family::new(Kind::Gauge, metric, help);
    let table = |rules: &[Rule]| rules.iter().map(|rule| gauge(rule.metric, rule.help)).collect::<Vec<Family>>();
    let mut kind = gauge(
        "libvirt_domain_job_info_type",
        "Kind of the job. 1: bounded, 2: unbounded, 3: completed, 4: failed, 5: cancelled.",
    );
    let mut active =
        gauge("petrel_migration_active", "A migration of the guest is under way, out of this host or into it.");
    let mut dirty = gauge(
        "petrel_migration_dirty_bytes_per_second",
        "Memory that the guest changes in a second while it is migrated.",
    );
    let (mut job, mut migration) = (table(&JOB), table(&MIGRATION));
    for ((name, uuid), answer) in guests {
        let labels = [("domain", name), ("uuid", uuid)];
        let value = |wanted: &str| {
            let mut pairs = answer.out.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim())
        };
        // Where a guest comes in, libvirt knows no more than that.
        if answer.words.contains("only on the source host") {
            active.push(&[("direction", "in"), ("domain", name), ("uuid", uuid)], 1.0);
            continue;
        }
        let Some(number) = value("Job type").and_then(|word| KINDS.iter().position(|known| *known == word)) else {
            continue;
        };
        if number == 0 {
            continue;
        }
        kind.push(&labels, number as f64);
        fill(&JOB, &mut job, &labels, &value);
        if !value("Operation").is_some_and(|operation| operation.to_lowercase().contains("migration")) {
            continue;
        }
        active.push(&[("direction", "out"), ("domain", name), ("uuid", uuid)], 1.0);
        fill(&MIGRATION, &mut migration, &labels, &value);
        if let (Some(pages), Some(size)) = (value("Dirty rate").and_then(figure), value("Page size").and_then(figure)) {
            dirty.push(&labels, pages * size);
        }
    }
    let mut families = vec![kind, active, dirty];
    families.extend(job);
    families.extend(migration);
    families
}

/// Whether a job runs on the guest that answered so.
pub(super) fn is_busy(answer: &Answer) -> bool {
    let kind = answer.out.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "Job type");
    kind.is_some_and(|(_, kind)| kind.trim() != "None") || answer.words.contains("only on the source host")
}

fn fill<'a>(
    rules: &[Rule],
    families: &mut [Family],
    labels: &[(&'static str, &str)],
    value: &dyn Fn(&str) -> Option<&'a str>,
) {
    for (rule, family) in rules.iter().zip(families) {
        if let Some(number) = value(rule.key).and_then(figure) {
            family.push(labels, number);
        }
    }
}

/// A number with libvirt's unit, in bytes, seconds, or as it is.
fn figure(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let number: f64 = words.next()?.parse().ok().filter(|number: &f64| number.is_finite())?;
    let unit = match words.next().unwrap_or_default().trim_end_matches("/s") {
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        "ms" => 1e-3,
        _ => 1.0,
    };
    Some(number * unit)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::text::render;

    fn answer(out: &str, words: &str) -> Answer {
        Answer { out: out.to_owned(), words: words.to_owned() }
    }

    #[test]
    fn a_migration_of_the_lab() {
        let moving = answer(include_str!("../../../testdata/virsh-domjobinfo.txt"), "");
        let coming = answer("", "Operation not supported: migration statistics are available only on the source host");
        let still = answer("Job type:         None        \n", "");
        assert!(is_busy(&moving) && is_busy(&coming) && !is_busy(&still));
        let guests = [(("vm1", "u1"), &moving), (("vm2", "u2"), &coming), (("vm3", "u3"), &still)];
        let text = render(&families(guests.into_iter()));
        let told: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            libvirt_domain_job_info_type{domain="vm1",uuid="u1"} 2
            petrel_migration_active{direction="out",domain="vm1",uuid="u1"} 1
            petrel_migration_active{direction="in",domain="vm2",uuid="u2"} 1
            petrel_migration_dirty_bytes_per_second{domain="vm1",uuid="u1"} 0
            libvirt_domain_job_info_time_elapsed_seconds{domain="vm1",uuid="u1"} 2.009
            libvirt_domain_job_info_data_total_bytes{domain="vm1",uuid="u1"} 134750404.608
            libvirt_domain_job_info_data_processed_bytes{domain="vm1",uuid="u1"} 1603272.704
            libvirt_domain_job_info_data_remaining_bytes{domain="vm1",uuid="u1"} 132169859.072
            libvirt_domain_job_info_memory_total_bytes{domain="vm1",uuid="u1"} 134750404.608
            libvirt_domain_job_info_memory_processed_bytes{domain="vm1",uuid="u1"} 1603272.704
            libvirt_domain_job_info_memory_remaining_bytes{domain="vm1",uuid="u1"} 132169859.072
            petrel_migration_bytes_per_second{domain="vm1",uuid="u1"} 1067450.368
            petrel_migration_iteration{domain="vm1",uuid="u1"} 1
            petrel_migration_expected_downtime_seconds{domain="vm1",uuid="u1"} 0.3
            petrel_migration_postcopy_requests{domain="vm1",uuid="u1"} 0"#]]
        .assert_eq(&told.join("\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(out in "(Job type: Unbounded\n|Operation: migration\n|Dirty rate: |.|\n){0,40}") {
            let answer = answer(&out, "");
            families([(("a", "b"), &answer)].into_iter());
        }
    }
}

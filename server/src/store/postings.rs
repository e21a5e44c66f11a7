//! Sorted lists of series' numbers as sets. Pure; who is in which list is `index`'s business.

use super::index::SeriesId;

/// Keeps the members of `set` that are in `list`, or with `present` false those that are not. O(n log m) where `list` is much
/// longer than `set`, O(n + m) where it is not.
pub fn retain(set: &mut Vec<SeriesId>, list: &[SeriesId], present: bool) {
    let mut at = 0;
    set.retain(|id| {
        at += before(&list[at..], *id);
        (list.get(at) == Some(id)) == present
    });
}

/// All members of some lists, sorted.
#[expect(
    clippy::stable_sort_primitive,
    reason = "the stable sort merges lists that are sorted already, one pass for each doubling"
)]
pub fn union<'a>(lists: impl IntoIterator<Item = &'a Vec<SeriesId>>) -> Vec<SeriesId> {
    let mut lists = lists.into_iter();
    let mut all = lists.next().cloned().unwrap_or_default();
    let one = all.len();
    lists.for_each(|list| all.extend_from_slice(list));
    if all.len() > one {
        all.sort();
        all.dedup();
    }
    all
}

/// How many members of a list are below `id`: in steps that double, since the next one asked for is mostly near.
fn before(list: &[SeriesId], id: SeriesId) -> usize {
    let mut end = 1;
    while list.get(end - 1).is_some_and(|member| *member < id) {
        end *= 2;
    }
    // All members up to half of `end` are known to be below.
    let (from, end) = (end / 2, end.min(list.len()));
    from + list[from..end].partition_point(|member| *member < id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_are_sets(a in prop::collection::btree_set(0u64..60, 0..40), b in prop::collection::btree_set(0u64..60, 0..40)) {
            let list = |set: &BTreeSet<u64>| set.iter().copied().collect::<Vec<_>>();
            for present in [true, false] {
                let mut kept = list(&a);
                retain(&mut kept, &list(&b), present);
                prop_assert_eq!(kept, list(&a.iter().copied().filter(|id| b.contains(id) == present).collect()));
            }
            prop_assert_eq!(union([&list(&a), &list(&b)]), list(&a.union(&b).copied().collect()));
        }
    }
}

//! Water marks follow `asyncio.transports._FlowControlMixin._set_write_buffer_limits`.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tokioloop_reactor::WaterMarks;

#[test]
fn limits_follow_the_rule_of_asyncio() {
    for (high, low, expected) in [
        (None, None, (65536, 16384)),
        (Some(1000), None, (1000, 250)),
        (None, Some(1000), (4000, 1000)),
        (Some(10), Some(10), (10, 10)),
        (Some(3), None, (3, 0)),
        (Some(0), None, (0, 0)),
        (None, Some(0), (0, 0)),
        (None, Some(usize::MAX), (usize::MAX, usize::MAX)),
    ] {
        let mut marks = WaterMarks::new();
        marks.set(high, low).unwrap();
        assert_eq!((marks.high(), marks.low()), expected, "high={high:?} low={low:?}");
    }
}

#[test]
fn a_low_mark_above_the_high_one_is_refused_and_changes_nothing() {
    let mut marks = WaterMarks::new();
    marks.set(Some(100), Some(50)).unwrap();
    let error = marks.set(Some(1), Some(2)).unwrap_err();
    assert_eq!(error.to_string(), "high (1) must be >= low (2) must be >= 0");
    assert_eq!((marks.high(), marks.low()), (100, 50));
}

proptest! {
    #[test]
    fn no_size_both_pauses_and_resumes(
        high in any::<Option<usize>>(),
        low in any::<Option<usize>>(),
        size in any::<usize>(),
    ) {
        let mut marks = WaterMarks::new();
        prop_assert_eq!(marks.set(high, low).is_err(), high.zip(low).is_some_and(|(h, l)| l > h));
        prop_assert!(!(marks.should_pause(size) && marks.should_resume(size)));
        prop_assert!(!marks.should_pause(marks.high()));
        prop_assert!(marks.should_resume(marks.low()));
    }
}

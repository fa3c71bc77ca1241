//! How much a figure grows in an hour, and how sure that is.

/// A line through points in time.
#[derive(Clone, Copy, Debug)]
pub struct Slope {
    /// Points.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Growth an hour.
    pub per_hour: f64,
    /// Half the width of the interval that holds the true growth with 95 %.
    pub margin: f64,
}

/// What a figure may grow in a day, as a share of its mean, to count as flat.
pub const DAY_SHARE: f64 = 0.10;
/// What kilobytes may grow in a day however few they are: a JVM's heap of 3 MB changes by more.
pub const DAY_KIB: f64 = 1024.0;

impl Slope {
    /// The least-squares line through points (seconds, value); `None` for fewer than 8. Neighbouring
    /// samples resemble each other, so the number of points that the interval is computed with is
    /// lowered by what they have in common (lag-1 correlation of the residuals).
    #[must_use]
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len();
        if count < 8 {
            return None;
        }
        let n = f64::from(u32::try_from(count).ok()?);
        let mean_at = points.iter().map(|(at, _)| at).sum::<f64>() / n;
        let mean = points.iter().map(|(_, value)| value).sum::<f64>() / n;
        let spread: f64 = points.iter().map(|(at, _)| (at - mean_at).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let together: f64 = points.iter().map(|(at, value)| (at - mean_at) * (value - mean)).sum();
        let slope = together / spread;
        let residuals: Vec<f64> =
            points.iter().map(|(at, value)| value - mean - slope * (at - mean_at)).collect();
        let square: f64 = residuals.iter().map(|r| r * r).sum();
        let lagged: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
        let alike = if square > 0.0 { (lagged / square).clamp(0.0, 0.99) } else { 0.0 };
        let worth = (n * (1.0 - alike) / (1.0 + alike)).max(3.5);
        // The variance of the slope for so many independent points: that of a residual, which is
        // square / n * worth / (worth - 2), over their spread, which is spread * worth / n.
        let variance = square / ((worth - 2.0) * spread);
        // Student's t at 97.5 %, near enough from 2 degrees of freedom on.
        let freedom = worth - 2.0;
        let student = 1.96 + 2.4 / freedom + 2.0 / (freedom * freedom);
        let per_hour = slope * 3600.0;
        Some(Self { count, mean, per_hour, margin: student * variance.sqrt() * 3600.0 })
    }

    /// What the figure does, as far as it can be told; growth of `least_a_day` counts as none.
    #[must_use]
    pub fn finding(&self, least_a_day: f64) -> Finding {
        let allowed = (DAY_SHARE * self.mean).max(least_a_day) / 24.0;
        if self.per_hour + self.margin <= allowed {
            Finding::Flat
        } else if self.per_hour - self.margin > 0.0 && self.per_hour > allowed {
            Finding::Grows
        } else {
            Finding::Unresolved
        }
    }
}

/// See [`Slope::finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Even at the upper end of the interval it would grow in a day by less than [`DAY_SHARE`] of
    /// its mean.
    Flat,
    /// By more than that, and no growth lies outside of the interval.
    Grows,
    /// The run is too short for its noise: neither is shown.
    Unresolved,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Flat => "flat",
            Self::Grows => "GROWS",
            Self::Unresolved => "no growth shown, nor excluded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A walk that neither grows nor shrinks, and resembles itself.
    fn noise(count: u32) -> Vec<f64> {
        let mut seed = 5_u64;
        let mut value = 0.0;
        (0..count)
            .map(|_| {
                seed = ringtribe_wire::native::mix(seed);
                let step = f64::from(u32::try_from(seed >> 40).expect("24 bits")) / 8_388_608.0;
                value = 0.7 * value + step - 1.0;
                value
            })
            .collect()
    }

    fn points(per_hour: f64) -> Vec<(f64, f64)> {
        let times = (0..500).map(|n| f64::from(n) * 5.0);
        times
            .zip(noise(500))
            .map(|(at, n)| (at, 100.0 + 5.0 * n + per_hour * at / 3600.0))
            .collect()
    }

    #[test]
    fn growth_is_measured_and_noise_is_not_taken_for_it() {
        let quiet = Slope::of(&points(0.0)).expect("enough points");
        assert_eq!(quiet.finding(0.0), Finding::Unresolved, "{quiet:?}");
        let grown = Slope::of(&points(40.0)).expect("enough points");
        assert_eq!(grown.finding(0.0), Finding::Grows, "{grown:?}");
        let shrunk = Slope::of(&points(-40.0)).expect("enough points");
        assert_eq!(shrunk.finding(0.0), Finding::Flat, "{shrunk:?}");
    }

    /// A walk of the same kind, begun elsewhere.
    fn walk(seed: u64) -> Vec<(f64, f64)> {
        let (mut seed, mut value) = (seed, 0.0);
        (0..500_u32)
            .map(|n| {
                seed = ringtribe_wire::native::mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
                let step = f64::from(u32::try_from(seed >> 40).expect("24 bits")) / 8_388_608.0;
                value = 0.7 * value + step - 1.0;
                (f64::from(n) * 5.0, value)
            })
            .collect()
    }

    #[test]
    fn the_interval_holds_the_true_growth_and_is_not_much_wider_than_it_has_to_be() {
        let slopes: Vec<Slope> = (0..1000).filter_map(|seed| Slope::of(&walk(seed))).collect();
        let held = slopes.iter().filter(|s| s.per_hour.abs() <= s.margin).count();
        assert!((900..=990).contains(&held), "{held} of 1000, meant are 950");
        let mut found: Vec<f64> = slopes.iter().map(|s| s.per_hour.abs()).collect();
        found.sort_by(f64::total_cmp);
        let mean_margin = slopes.iter().map(|s| s.margin).sum::<f64>() / 1000.0;
        let ratio = mean_margin / found[950];
        assert!((0.8..=1.4).contains(&ratio), "an interval {ratio} times as wide as it should be");
    }

    #[test]
    fn a_figure_that_never_changes_has_no_slope_and_few_points_say_nothing() {
        let constant: Vec<(f64, f64)> = (0..20).map(|n| (f64::from(n), 12.0)).collect();
        let slope = Slope::of(&constant).expect("enough points");
        assert_eq!((slope.per_hour, slope.margin), (0.0, 0.0));
        assert_eq!(slope.finding(0.0), Finding::Flat);
        assert!(Slope::of(&constant[..7]).is_none());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which stock kernels the Debian archive offers, and which of them is meant.
//!
//! A kernel fits if its image, modules, headers and source are all in the archive in one and the
//! same version: the source rebuilds the Rust metadata that the headers lack.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::root::Root;
use crate::run;

/// The oldest series with a Rust interface that the module can be built for.
const OLDEST_MAJOR: u32 = 7;
/// The kernel that the user asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// The newest generic kernel in the archive.
    Newest,
    /// The newest generic kernel of the series before the newest's.
    Previous,
    /// The newest realtime kernel in the archive.
    Rt,
    /// A kernel with checkers, built from the source of the newest.
    Debug,
    /// This release, as `uname -r` would print it.
    Release(String),
}

impl Wanted {
    /// A name for it in file names and messages.
    pub fn name(&self) -> &str {
        match self {
            Wanted::Newest => "newest",
            Wanted::Previous => "previous",
            Wanted::Rt => "rt",
            Wanted::Debug => "debug",
            Wanted::Release(release) => release,
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        match text {
            "newest" => Ok(Wanted::Newest),
            "previous" => Ok(Wanted::Previous),
            "rt" => Ok(Wanted::Rt),
            "debug" => Ok(Wanted::Debug),
            _ if Offer::parse(text).is_some() => Ok(Wanted::Release(text.to_owned())),
            _ => Err(format!(
                "not `newest`, `previous`, `rt`, `debug` or the release of a generic or realtime amd64 \
                 kernel from {OLDEST_MAJOR}.0 up, such as 7.3.4+deb13-amd64"
            )),
        }
    }
}

/// What a kernel was configured for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Flavour {
    Generic,
    Realtime,
}

impl Flavour {
    /// Takes the end off a release.
    fn strip(release: &str) -> Option<(&str, Flavour)> {
        let rest = release.strip_suffix("-amd64")?;
        Some(match rest.strip_suffix("-rt") {
            Some(rest) => (rest, Flavour::Realtime),
            None => (rest, Flavour::Generic),
        })
    }
}

/// One kernel of the archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// What `uname -r` prints.
    pub release: String,
    /// The version of all its packages.
    pub version: String,
    /// Major, minor, patch level and Debian's own number.
    number: [u32; 4],
    flavour: Flavour,
}

impl Offer {
    /// Takes a release such as `7.3.4+deb13-amd64` apart; the package version is left empty.
    fn parse(release: &str) -> Option<Offer> {
        let (rest, flavour) = Flavour::strip(release)?;
        let (upstream, debian) = rest.split_once("+deb")?;
        let mut parts = upstream.split('.').map(|part| part.parse().ok());
        let number = [
            parts.next()??,
            parts.next()??,
            parts.next().unwrap_or(Some(0))?,
            debian.split('+').next()?.parse().ok()?,
        ];
        if parts.next().is_some() || number[0] < OLDEST_MAJOR {
            return None;
        }
        Some(Offer {
            release: release.to_owned(),
            version: String::new(),
            number,
            flavour,
        })
    }

    /// Returns the kernel of a release and of a version of its packages, or `None` if this is no
    /// release of the archive.
    pub fn new(release: &str, version: &str) -> Option<Offer> {
        let offer = Offer::parse(release)?;
        let version = version.to_owned();
        Some(Offer { version, ..offer })
    }

    fn series(&self) -> [u32; 2] {
        [self.number[0], self.number[1]]
    }

    /// The package with the source.
    pub fn source_package(&self) -> String {
        format!("linux-source-{}.{}", self.number[0], self.number[1])
    }

    /// The packages with what was built from it.
    pub fn built_packages(&self) -> [String; 4] {
        ["binary-unsigned", "modules", "headers", "base"]
            .map(|what| format!("linux-{what}-{}", self.release))
    }

    /// The part of the release that the source knows: `7.3.4`.
    pub fn upstream(&self) -> &str {
        self.release
            .strip_suffix(self.local_version())
            .unwrap_or(&self.release)
    }

    /// The part of the release that the source does not know: `+deb13-amd64`.
    pub fn local_version(&self) -> &str {
        self.release
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
    }
}

/// Asks the archive, and says what was chosen.
pub fn choose(root: &Root, wanted: &Wanted) -> Result<Offer> {
    let offers = run::step("ask the archive for kernels", |step| {
        step.run(&mut root.shell("apt-get -q -o Acquire::Retries=3 update", &[])?)?;
        let names = run::output(&mut root.shell("apt-cache pkgnames linux-headers-", &[])?)?;
        let mut offers: Vec<Offer> = names
            .lines()
            .filter_map(|name| Offer::parse(name.strip_prefix("linux-headers-")?))
            .collect();
        let mut packages = BTreeSet::new();
        for offer in &offers {
            packages.insert(offer.source_package());
            packages.extend(offer.built_packages());
        }
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        let madison = run::output(&mut root.shell("apt-cache madison \"$@\"", &packages)?)?;
        fit(&mut offers, &parse_madison(&madison));
        Ok(offers)
    })?;
    let list: Vec<&str> = offers.iter().map(|o| o.release.as_str()).collect();
    let list = if list.is_empty() {
        "none".to_owned()
    } else {
        list.join(", ")
    };
    let chosen = pick(&offers, wanted).with_context(|| {
        format!(
            "the archive has no kernel that fits `{}`: it takes image, modules, headers and source \
             of one version from {OLDEST_MAJOR}.0 up; those that fit: {list}",
            wanted.name()
        )
    })?;
    run::say(&format!(
        "kernel {} (packages {}), of: {list}",
        chosen.release, chosen.version
    ));
    Ok(chosen.clone())
}

/// `package | version | source` lines as versions by package.
fn parse_madison(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split('|').map(str::trim);
        if let (Some(package), Some(version)) = (fields.next(), fields.next()) {
            versions.entry(package).or_default().insert(version);
        }
    }
    versions
}

/// Gives every offer its version, drops those that are incomplete, and sorts the newest first, with
/// the generic kernel before the realtime one of the same version.
fn fit(offers: &mut Vec<Offer>, versions: &BTreeMap<&str, BTreeSet<&str>>) {
    offers.retain_mut(|offer| {
        let of = |package: &str| versions.get(package).cloned().unwrap_or_default();
        let mut common = of(&offer.source_package());
        for package in offer.built_packages() {
            let have = of(&package);
            common.retain(|version| have.contains(version));
        }
        let Some(version) = common.last() else {
            return false;
        };
        offer.version = (*version).to_owned();
        true
    });
    offers.sort_by_key(|offer| (std::cmp::Reverse(offer.number), offer.flavour));
}

fn pick<'a>(offers: &'a [Offer], wanted: &Wanted) -> Option<&'a Offer> {
    let newest = |flavour| offers.iter().find(move |o| o.flavour == flavour);
    match wanted {
        Wanted::Newest | Wanted::Debug => newest(Flavour::Generic),
        Wanted::Rt => newest(Flavour::Realtime),
        Wanted::Previous => {
            let series = newest(Flavour::Generic)?.series();
            let mut generic = offers.iter().filter(|o| o.flavour == Flavour::Generic);
            generic.find(|o| o.series() < series)
        }
        Wanted::Release(release) => offers.iter().find(|o| o.release == *release),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "\
linux-source-7.3 | 7.3.4-1~bpo13+1 | mirror
linux-source-7.2 | 7.2.12-1~bpo13+1 | mirror
linux-source-7.2 | 7.2.9-1~bpo13+1 | mirror
linux-headers-7.3.4+deb13-amd64 | 7.3.4-1~bpo13+1 | mirror
linux-headers-7.3.4+deb13-rt-amd64 | 7.3.4-1~bpo13+1 | mirror
linux-headers-7.2.12+deb13-rt-amd64 | 7.2.12-1~bpo13+1 | mirror
linux-headers-7.2.12+deb13-amd64 | 7.2.12-1~bpo13+1 | mirror
linux-headers-7.2.9+deb13-amd64 | 7.2.9-1~bpo13+1 | mirror
linux-headers-7.2.8+deb13-amd64 | 7.2.8-1~bpo13+1 | mirror
";

    fn offers() -> Vec<Offer> {
        let mut text = MADISON.to_owned();
        for line in MADISON.lines().filter(|line| line.contains("headers")) {
            for other in ["binary-unsigned", "modules", "base"] {
                text.push_str(&line.replace("headers", other));
                text.push('\n');
            }
        }
        let mut offers: Vec<Offer> = [
            "7.2.8+deb13-amd64",
            "7.2.9+deb13-amd64",
            "7.2.12+deb13-rt-amd64",
            "7.2.12+deb13-amd64",
            "7.3.4+deb13-rt-amd64",
            "7.3.4+deb13-amd64",
        ]
        .iter()
        .map(|release| Offer::parse(release).unwrap())
        .collect();
        fit(&mut offers, &parse_madison(&text));
        offers
    }

    fn picked(wanted: &str) -> Option<String> {
        pick(&offers(), &wanted.parse().unwrap()).map(|offer| offer.release.clone())
    }

    #[test]
    fn newest_previous_and_realtime_kernels_are_found() {
        assert_eq!(picked("newest").as_deref(), Some("7.3.4+deb13-amd64"));
        assert_eq!(picked("previous").as_deref(), Some("7.2.12+deb13-amd64"));
        assert_eq!(picked("rt").as_deref(), Some("7.3.4+deb13-rt-amd64"));
        assert_eq!(picked("debug"), picked("newest"));
        assert_eq!(
            picked("7.2.9+deb13-amd64").as_deref(),
            Some("7.2.9+deb13-amd64")
        );
    }

    #[test]
    fn a_kernel_without_its_source_does_not_fit() {
        assert_eq!(picked("7.2.8+deb13-amd64"), None);
    }

    #[test]
    fn other_flavours_and_series_are_refused() {
        for name in ["7.3.4+deb13-cloud-amd64", "6.12.107+deb13-amd64", "7.3"] {
            assert!(name.parse::<Wanted>().is_err(), "{name}");
        }
    }

    #[test]
    fn the_local_version_is_what_follows_the_number() {
        assert_eq!(offers()[0].local_version(), "+deb13-amd64");
        assert_eq!(offers()[0].upstream(), "7.3.4");
        assert_eq!(offers()[1].local_version(), "+deb13-rt-amd64");
        assert_eq!(offers()[2].source_package(), "linux-source-7.2");
    }
}

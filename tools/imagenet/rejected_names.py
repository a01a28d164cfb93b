"""Names with wrong translations in the larger sources, found by review; for the generator only.

Wrong translations name another thing (Japanese "coward" for a dishrag), a wider kind, or nothing. The English name is used
instead.
"""

from __future__ import annotations

from collections.abc import Mapping


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.replace("\n", " ").split(";"))


REJECTED_NAMES: Mapping[str, frozenset[str]] = {
    "ar": _names("beach wagon; feather boa; guacamole; spaghetti squash"),
    "es": _names(
        """
        Brittany spaniel; Eskimo dog; Great Pyrenees; alp; baboon; barn; beach wagon; birdhouse; boxer; breastplate; bullfrog;
        castle; clothing; cock; echidna; fiddler crab; fur coat; green lizard; greenhouse; grocery store; hatchet; hen; hook;
        house finch; jaguar; jay; mailbox; mantis; meat loaf; notebook computer; parallel bars; passenger car; red wine; robe;
        sea snake; sloth; timber wolf; toy terrier; trench coat; walking stick
        """
    ),
    "fr": _names(
        """
        breastplate; buffalo; bun; cash machine; chain mail; chambered nautilus; computer keyboard; container; gasmask;
        grand piano; grocery store; hose; meat loaf; potter's wheel; sandbar; scoreboard; toilet tissue; vestment
        """
    ),
    "it": _names(
        """
        can opener; case; chime; diaper; egret; impala; kit; lighter; nematode; packet; stingray; thimble
        """
    ),
    "ja": _names(
        """
        African grey; Crock Pot; European gallinule; Granny Smith; Madagascar cat; bee eater; bicycle-built-for-two; bittern;
        bolete; chain mail; china cabinet; common iguana; common newt; curly-coated retriever; diamondback; dishrag;
        entertainment center; four-poster; ground beetle; hand-held computer; harvestman; iPod; jacamar; mud turtle;
        passenger car; prairie chicken; red-backed sandpiper; red-breasted merganser; rock beauty; solar dish;
        sulphur butterfly; sulphur-crested cockatoo; tailed frog; thunder snake; turnstile; tusker; water ouzel; wood rabbit;
        yellow lady's slipper
        """
    ),
    "pt-br": _names(
        """
        CD player; alp; automatic washer; baboon; bandage; bassoon; beach wagon; black-footed ferret; bonnet; bun;
        butcher shop; cassette; computer keyboard; container; crate; crayfish; espresso; feather boa; folding chair;
        grocery store; harvestman; hay; jay; lawn mower; mongoose; moped; nipple; notebook computer; opener; red wolf; screen;
        shaker; snorkel; strainer; streetcar; swimming trunks; walking stick; wallaby
        """
    ),
    "zh-cn": _names(
        """
        American coot; axolotl; beach wagon; bluetick; bulbul; can opener; china cabinet; clumber; dining table; face powder;
        flatworm; fox squirrel; ground beetle; hand blower; hognose snake; ibex; leaf beetle; meat loaf; moped; plow; porcupine;
        ptarmigan; red wolf; space heater; spoonbill; steel drum; sulphur butterfly; toilet seat; tusker
        """
    ),
}

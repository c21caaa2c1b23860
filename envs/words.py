"""Words for synthetic documents.

Names are made of random syllables: an open vocabulary, so that copying is the only way to be right.
`|` separates choices; one that is drawn more often stands more than once.
"""

from __future__ import annotations

from random import Random

_ONSETS = [*"b c d f g h j k l m n p r s t v w y z ch sh th br kr tr gr pl st sw kh ng".split(), ""]
_NUCLEI = "a e i o u a e i o u ai au ee oo ia ei ou uo".split()
_CODAS = [*"n ng r l t k m s h p x".split(), *[""] * 9]
# English and European clusters: real names are not all made of open syllables.
_WIDE_ONSETS = [*"b c d f g h j k l m n p qu r s t v w x y z".split(), *"bl br ch cl cr dr fl fr gl gr".split(),
                *"kn ph pl pr sc sh sk sl sm sn sp st str th tr tw wh wr".split(), "", "", ""]  # fmt: skip
_WIDE_NUCLEI = "a e i o u y a e i o u ea ee ie oa ou ay ey oy ue ae eu".split()
_WIDE_CODAS = [*"b d ck ct f ft g ght l ld ll lk lt m mp n nd ng nk nt p r".split(), *[""] * 14,
               *"rd rk rm rn rs rt s sh sk ss st t tch tt v x z".split()]  # fmt: skip
_REAL_WORDS = """
MASTER PRIME ROYAL UNITED NATIONAL FIRST ACTIVE ADVANCE ALLIANCE AMBER ANCHOR APEX ARROW ATLAS AVENUE BEACON BRIGHT
BRIDGE CASTLE CENTURY CHAMPION CITY CLEAR COASTAL COMFORT CONCORD CRYSTAL DELTA DIAMOND DRAGON DREAM EAGLE EAST ELITE
EMPIRE EVER EVEREST EXPERT EXPRESS FALCON FIELD FOREST FORTUNE FRIENDLY FUTURE GALAXY GATEWAY GOLDEN GRAND GREAT
HARBOUR HARMONY HEALTH HERITAGE HIGHLAND HORIZON IDEAL IMPERIAL ISLAND JUPITER KINGDOM LAKE LEADER LEGEND LIBERTY LION
LOTUS LUCKY MAGIC MAPLE MERCURY MERIDIAN METRO MODERN MOUNTAIN NATURE NOBLE NORTH OCEAN OLYMPIC ORCHID ORIENT PACIFIC
PALACE PALM PARADISE PEARL PERFECT PHOENIX PIONEER PLANET PLAZA POPULAR POWER PRESTIGE PRINCE PROGRESS QUALITY QUEEN
RAINBOW RAPID REGENT RELIABLE RIVER ROCK ROSE SAFARI SAPPHIRE SEASON SELECT SHINE SIGNATURE SKY SMART SOLAR SOUTH SPRING
STAR STERLING STONE SUMMIT SUN SUNRISE SUPREME SWIFT TARGET TEMPLE THUNDER TIGER TITAN TOP TOWER TRIANGLE TROPICAL TRUST
TWIN UNIQUE UNIVERSAL VALLEY VALUE VICTORY VILLAGE VISION VISTA WEALTH WEST WILLOW WINDOW WISDOM WONDER YOUNG ZENITH
""".split()
_PACKS = (100, 125, 200, 250, 330, 350, 500, 750, 900)

GOODS = """
RICE MEAT VEGE CHICKEN FISH PRAWN NOODLE SOUP EGG TOFU BREAD BUN CAKE BISCUIT COOKIE MILK CHEESE BUTTER SUGAR SALT OIL
SAUCE CHILI PEPPER GARLIC ONION TOMATO POTATO CARROT APPLE ORANGE BANANA LEMON MANGO GRAPE PAPAYA TEA COFFEE TEH KOPI
MILO JUICE WATER COLA BEER WINE SODA LATTE MOCHA NASI MEE AYAM IKAN DAGING KUIH ROTI CANAI GULA GARAM BAWANG SAYUR
TELUR TISSUE SOAP SHAMPOO BRUSH PASTE TOWEL BOTTLE CUP PLATE BOWL SPOON FORK KNIFE PAN POT TRAY BAG BOX PAPER PEN
PENCIL INK GLUE TAPE FILE FOLDER BOOK NOTE CARD ENVELOPE STAPLE CLIP RULER MARKER STICKER LABEL PIPE ELBOW SOCKET VALVE
SCREW NUT BOLT WASHER NAIL HAMMER DRILL BIT SAW BLADE CEMENT PAINT ROLLER THINNER WIRE CABLE PLUG SWITCH BULB LED LAMP
FAN BATTERY ADAPTOR CHARGER PHONE CASE CABLE USB MOUSE KEYBOARD HINGE LOCK KEY CHAIN ROPE HOSE PUMP FILTER GASKET TYRE
TUBE BRAKE PAD LAMP PETROL DIESEL PRIMAX RON95 RON97 ENGINE SHIRT PANTS DRESS SKIRT SHOE SOCK BELT HAT GLOVE WATCH RING
TOY DOLL BALL CAR ROBOT PUZZLE PLANT SEED SOIL FLOWER VASE FRAME MIRROR CLOCK TABLE CHAIR SHELF MAT CURTAIN PILLOW
SHEET BLANKET SPICY FRIED STEAM ROAST GRILLED HOT ICED SET COMBO MEAL LUNCH DINNER SNACK TABLET CAPSULE SYRUP CREAM
LOTION MASK BANDAGE COTTON VITAMIN SERVICE LABOUR PARKING DELIVERY REPAIR WASH CUT
""".split()
DESCRIPTORS = """
SMALL LARGE BIG MINI JUMBO REGULAR RED BLUE GREEN WHITE BLACK YELLOW GOLD SILVER BROWN FRESH ORGANIC PLAIN EXTRA DOUBLE
SUPER ULTRA HEAVY LIGHT SOFT HARD SWEET SOUR SALTY DARK ORIGINAL CLASSIC SPECIAL PREMIUM NORMAL KIDS FAMILY HALF FULL
DRY WET LONG SHORT ROUND SQUARE FLAT THICK THIN
""".split()
TRADES = """
HARDWARE TRADING ENTERPRISE STATIONERY RESTAURANT RESTORAN CAFE BAKERY MART MINIMARKET SUPERMARKET HYPERMARKET PHARMACY
STORE SHOP BOOKSTORE GIFT HOME DECO FASHION ELECTRICAL MACHINERY MOTOR AUTO TYRE PETROLEUM STATION SERVICES SUPPLIES
HOLDINGS FOOD SEAFOOD KITCHEN CORNER DIY HOUSE CENTRE CENTER MARKETING INDUSTRIES INTERNATIONAL GLOBAL RETAIL GROUP
BEAUTY OPTICAL PET WORLD KOPITIAM CATERING BISTRO GRILL BAR HOTEL FURNITURE TEXTILE JEWELLERY PHOTO PRINT GARDEN FARM
FRESH FROZEN WINES LAUNDRY CLINIC DENTAL TOYS SPORTS
""".split()
CITIES = {
    "MY": (
        "KUALA LUMPUR|JOHOR BAHRU|SHAH ALAM|PETALING JAYA|KLANG|IPOH|PUCHONG|SUBANG JAYA|CHERAS|KAJANG|SERI KEMBANGAN|"
        "MELAKA|SEREMBAN|GEORGE TOWN|BUTTERWORTH|SKUDAI|MASAI|BATU PAHAT|KLUANG|MUAR|AMPANG|RAWANG|SETIA ALAM|BANGI|"
        "CYBERJAYA|KUANTAN"
    ),
    "SG": "SINGAPORE",
    "US": "SPRINGFIELD|PORTLAND|AUSTIN|DENVER|FRESNO|BOISE|TAMPA|MADISON|SEATTLE|OAKLAND",
    "UK": "LONDON|LEEDS|BRISTOL|YORK|DERBY|READING|EXETER|CARDIFF",
    "AU": "SYDNEY|PERTH|HOBART|BRISBANE|ADELAIDE",
    "DE": "BERLIN|HAMBURG|KOELN|LEIPZIG|BREMEN|DRESDEN",
    "FR": "PARIS|LYON|NANTES|LILLE|RENNES",
    "PT": "LISBOA|PORTO|BRAGA|FARO|COIMBRA",
    "IN": "MUMBAI|PUNE|DELHI|CHENNAI|KOCHI",
}
_COMPANY_FORMS = {
    "MY": "SDN BHD|SDN BHD|SDN. BHD.|SDN.BHD.|S/B|SDN BHD.|PLT|BERHAD",
    "SG": "PTE LTD|PTE. LTD.|",
    "US": "INC|LLC|INC.|||CO.",
    "UK": "LTD|PLC|||LIMITED",
    "AU": "PTY LTD||",
    "DE": "GMBH|KG|OHG|E.K.|GMBH & CO. KG",
    "FR": "SARL|SAS|SA|",
    "PT": "LDA|S.A.|UNIPESSOAL LDA|",
    "IN": "PVT LTD|STORES|TRADERS|& SONS|LTD",
}
_MALAY_TRADES = "RESTORAN|KEDAI MAKAN|KEDAI BUKU|PERNIAGAAN|SYARIKAT|PASARAYA|KEDAI UBAT|STESEN MINYAK"
_MALAY_AREAS = "TAMAN {}|BANDAR {}|KAWASAN PERINDUSTRIAN {}|DESA {}|SEKSYEN {}|PUSAT PERNIAGAAN {}|PJU {}|DAMANSARA {}"
_MALAY_ROADS = "JALAN {}|JLN {}|JALAN {} {}/{}|JALAN {} {}|LORONG {}|PERSIARAN {}|JALAN TUN {}"
_MALAY_STATES = "SELANGOR|JOHOR|PERAK|KEDAH|PENANG|MALAYSIA|W.P.|SELANGOR D.E.|SELANGOR DARUL EHSAN"
_FILLER = """
PLEASE KEEP THIS RECEIPT FOR PROOF OF PURCHASE|CUSTOMER SERVICE {tel}|THIS IS A COMPUTER GENERATED RECEIPT|
NO SIGNATURE IS REQUIRED|EXCHANGE IS ALLOWED WITHIN {n} DAYS WITH RECEIPT|STRICTLY NO CASH REFUND|
KEEP THE INVOICE FOR APPLICABLE RETURNS|LIKE US ON FACEBOOK|FOLLOW US ON FACEBOOK AND INSTAGRAM|WWW.{w}.COM.MY|
WWW.{w}.COM|EMAIL: {w}@{w}.COM|PRICE INCLUSIVE OF GST|MEMBER CARD NO: {d}|MEMBERSHIP : {d}|POINTS EARNED: {n}|
POINT BALANCE : {d}|APPROVAL CODE: {d}|TERMINAL ID {d}|BATCH NO: {d}|TRACE NO {d}|REF NO. {d}|SALESPERSON : {w}|
SALES PERSON: {w} {w}|CUSTOMER: CASH|CUSTOMER NAME : {w} {w}|ATTN: {w}|BILL TO: {w} {w}|MEMBER: {w}|QUEUE NO: {n}|
ORDER NO : {d}|ORDER {d}|TABLE NO: {n}|TAKE AWAY|DINE IN|EAT IN|PAX {n}|POS NO: {n}|COUNTER NO. {n}|SHIFT: {n}|
BRANCH : {w}|OUTLET: {w} {w}|BUSINESS HOURS: 10AM TO 10PM|OPEN DAILY 8.30AM - 9.30PM|ANY COMPLAINTS PLEASE CALL {tel}|
WHATSAPP {tel}|E. & O.E.|GOODS SOLD ARE NOT REFUNDABLE|CHECK YOUR CHANGE BEFORE LEAVING THE COUNTER|
WE ACCEPT ALL MAJOR CREDIT CARDS|SEASONS GREETINGS|HAPPY NEW YEAR|YOUR FEEDBACK IS VALUABLE TO US|
SCAN HERE TO JOIN OUR LOYALTY PROGRAM|DUPLICATE COPY|REPRINT|ORIGINAL|*** {w} ***|(PRICES INCLUDE {n}% TAX)|
RECEIVED ABOVE GOODS IN GOOD ORDER AND CONDITION|ISSUED BY: {w}|PREPARED BY : {w} {w}|VALID WITHIN {n} MONTHS|
PLEASE RETAIN FOR YOUR RECORDS|POWERED BY {w} SYSTEM|{w} POS SOLUTION|CUSTOMER COPY|BUY {w} ONLINE|TERMS: C.O.D|
TERMS : CASH|PAYMENT BY CASH|NO. OF PRINT: {n}|DOC NO. : CS{d}|GST TAX CODE|SELF SERVICE|WELCOME|NON-HALAL|
PARKING RATE APPLIES|COME AGAIN SOON|DELIVERY AVAILABLE|TEL ORDER {tel}|TIME IN: {n}|STORE: {d}|MANAGER {w}|
HOTLINE: {tel}|COMPLAINTS AND SUGGESTIONS: {tel}
""".replace("\n", "")


def pick(rng: Random, choices: str) -> str:
    """One of "A|B|C"."""
    return rng.choice(choices.split("|"))


def maybe(rng: Random, share: float, line: str) -> list[str]:
    """[line] in this share of draws, else []."""
    return [line] if rng.random() < share else []


def word(rng: Random, low: int = 1, high: int = 3) -> str:
    """One upper-case word of `low` to `high` syllables; now and then a real word, or letters that nobody can say."""
    syllables, kind = range(rng.randint(low, high)), rng.random()
    if kind < 0.1 and high > 1:
        return rng.choice(_REAL_WORDS)
    if kind < 0.14 and high > 1:
        return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 8)))
    onsets, nuclei, codas = (_WIDE_ONSETS, _WIDE_NUCLEI, _WIDE_CODAS) if kind < 0.5 else (_ONSETS, _NUCLEI, _CODAS)
    out = "".join(rng.choice(onsets) + rng.choice(nuclei) + rng.choice(codas) for _ in syllables).upper()
    return out if len(out) > 1 else out + "N"


def initials(rng: Random) -> str:
    letters = [rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 4))]
    return pick(rng, "{}|{}|{}.").format(pick(rng, "|.").join(letters))


def digits(rng: Random, n: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(n))


def code(rng: Random) -> str:
    """An article number, a bar code, a stock code."""
    kind = rng.randrange(7)
    if kind == 0:
        return "955" + digits(rng, 10)
    if kind == 1:
        return digits(rng, rng.randint(3, 7))
    if kind == 2:
        return rng.choice("ABCDEFGHJKLMNPRSTWX") + digits(rng, rng.randint(3, 6))
    if kind == 3:
        return f"{digits(rng, 4)}-{digits(rng, 4)}"
    if kind == 4:
        return word(rng, 1, 1)[:3] + digits(rng, rng.randint(2, 5))
    if kind == 5:
        return rng.choice("ABCDW") + rng.choice("ABJKS") + digits(rng, 2) + "-" + digits(rng, 2)
    return rng.choice("I1") + "00" + digits(rng, 9)


def item_name(rng: Random) -> str:
    """Goods as tills print them: brand, thing, size, odd marks."""
    parts: list[str] = []
    if rng.random() < 0.12:
        parts.append(pick(rng, "1|2|3|4|5|10|100|888"))
    if rng.random() < 0.6:
        parts.append(word(rng) if rng.random() < 0.85 else initials(rng))
    if rng.random() < 0.35:
        parts.append(rng.choice(DESCRIPTORS))
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        parts.append(rng.choice(GOODS) if rng.random() < 0.65 else word(rng))
    extra = rng.random()
    if extra < 0.28:
        size = rng.choice([rng.randint(1, 9), rng.randint(10, 99), rng.choice(_PACKS)])
        parts.append(pick(rng, "{}ML|{}G|{}GM|{}KG|{}MM|{}CM|{}L|{}'S|{}PCS|{}S|({})|X{}|{}\"|{}W").format(size))
    elif extra < 0.40:
        parts.append(pick(rng, "(B)|(S)|(L)|(M)|(HOT)|(ICE)|PKT|SET|NO.2|A4|70%|(HALF)|- L|+|&|W/"))
        if parts[-1] in {"+", "&", "W/"}:
            parts.append(rng.choice(GOODS))
    elif extra < 0.46:
        parts.append(f"{rng.randint(2, 99)}{rng.choice('X*/')}{rng.randint(2, 99)}{pick(rng, 'MM|CM|G|')}")
    text = " ".join(parts)
    return text.replace(" ", rng.choice("-/."), 1) if rng.random() < 0.06 else text


def person(rng: Random) -> str:
    return " ".join(word(rng, 1, 2) for _ in range(rng.randint(1, 3)))


def vendor(rng: Random, locale: str) -> str:
    """A shop or company name in the forms of its country."""
    core = _brand(rng)
    trades = " ".join(rng.sample(TRADES, rng.choice([0, 1, 1, 1, 2, 2])))
    malay = rng.random() < 0.12
    name = f"{core} {trades}".strip()
    if locale == "MY":
        return _malaysian_company(rng, f"{pick(rng, _MALAY_TRADES)} {core}" if malay else name)
    name = f"{name} {pick(rng, _COMPANY_FORMS[locale])}".strip()
    if rng.random() < 0.15:
        name += f" #{rng.randint(1, 999)}" if locale == "US" else f" {pick(rng, CITIES[locale])}"
    return name


def _brand(rng: Random) -> str:
    name = " ".join(word(rng, 1, 3) for _ in range(rng.choice([1, 1, 2, 2, 3])))
    if rng.random() < 0.15:
        name = initials(rng) + (" " + word(rng) if rng.random() < 0.5 else "")
    if rng.random() < 0.06:
        name = f"{pick(rng, '99|7|888|1|21|3|101')} {name}"
    if rng.random() < 0.08:
        name = f"{name} {pick(rng, '&|AND')} {word(rng)}"
    return name + "'S" if rng.random() < 0.05 else name


def _malaysian_company(rng: Random, name: str) -> str:
    if rng.random() < 0.58:
        if rng.random() < 0.3:
            name = f"{name} {pick(rng, f'(M)|(KL)|(JOHOR)|(MALAYSIA)|({word(rng)})|CO. (M)')}"
        return f"{name} {pick(rng, _COMPANY_FORMS['MY'])}"
    return f"{name} ({word(rng, 2, 3)})" if rng.random() < 0.2 else name


def address(rng: Random, locale: str) -> list[str]:
    """Two or three lines."""
    city, street, number = pick(rng, CITIES[locale]), word(rng, 2, 3), rng.randint(1, 199)
    match locale:
        case "MY":
            return _malaysian_address(rng, city, street, number)
        case "US":
            first = f"{number} {street} {pick(rng, 'ST|AVE|BLVD|RD|DRIVE')}"
            return [first, f"{city}, {pick(rng, 'CA|TX|WA|OR|CO|FL|WI')} {digits(rng, 5)}"]
        case "UK":
            first = f"{number} {street} {pick(rng, 'STREET|ROAD|LANE|HIGH ST')}"
            outward = f"{word(rng, 1, 1)[:2]}{rng.randint(1, 20)}"
            return [first, f"{city} {outward} {rng.randint(1, 9)}{pick(rng, 'AB|QT|XY|DE')}"]
        case "DE":
            return [f"{street}STR. {number}", f"{digits(rng, 5)} {city}"]
        case "FR":
            return [f"{number} RUE {street}", f"{digits(rng, 5)} {city}"]
        case "PT":
            return [f"RUA {street} {number}", f"{digits(rng, 4)}-{digits(rng, 3)} {city}"]
        case "SG":
            first = f"{number} {street} {pick(rng, 'ROAD|AVENUE 2|STREET 11|LANE')}"
            return [f"{first} #0{rng.randint(1, 9)}-{rng.randint(1, 99)}", f"SINGAPORE {digits(rng, 6)}"]
    first = f"{number} {street} {pick(rng, 'ROAD|STREET|MARG|PDE')}"
    return [first, f"{city} {digits(rng, 6 if locale == 'IN' else 4)}"]


def _malaysian_address(rng: Random, city: str, street: str, number: int) -> list[str]:
    unit = pick(rng, "NO {}|NO. {}|NO.{}|LOT {}|{}|{}-1|G-{}|{}G|LOT P.T. {}").format(number)
    road = pick(rng, _MALAY_ROADS).format(street, rng.randint(1, 30), rng.randint(1, 20))
    area = pick(rng, _MALAY_AREAS).format(word(rng))
    post, state = digits(rng, 5), pick(rng, _MALAY_STATES)
    lines = [f"{unit} {road}", f"{area}, {post}", city]
    if rng.random() < 0.7:
        lines = [f"{unit}, {road},", f"{area},", f"{post} {city}, {state}"]
    return lines if rng.random() < 0.75 else [" ".join(lines[:2]), *lines[2:]]


def phone(rng: Random, locale: str) -> str:
    if locale == "MY":
        n = digits(rng, 8)
        form = pick(rng, "0{}-{}{}|0{}-{} {}|+60{}-{} {}|(0{}){}{}")
        return form.format(rng.choice("34567"), n[:4], n[4:])
    if locale == "US":
        return f"({digits(rng, 3)}) {digits(rng, 3)}-{digits(rng, 4)}"
    return pick(rng, "0{} {}|+{} {}|0{}/{}").format(digits(rng, 3), digits(rng, 7))


def filler(rng: Random, locale: str, low: int, high: int) -> list[str]:
    """`low` to `high` lines that say nothing about the sale, as every till prints them."""
    return [_phrase(rng, locale) for _ in range(rng.randint(low, high))]


def _phrase(rng: Random, locale: str) -> str:
    form, tel, name = pick(rng, _FILLER), phone(rng, locale), word(rng)
    return form.format(tel=tel, w=name, d=digits(rng, rng.randint(3, 9)), n=rng.randint(1, 30))

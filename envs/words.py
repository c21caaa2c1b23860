"""Words for synthetic documents. Names are made of random syllables: an open vocabulary, so that copying is the only way to be right."""

from __future__ import annotations

from random import Random

_ONSETS = "b c d f g h j k l m n p r s t v w y z ch sh th br kr tr gr pl st sw kh ng".split() + [""]
_NUCLEI = "a e i o u a e i o u ai au ee oo ia ei ou uo".split()
_CODAS = "n ng r l t k m s h p x".split() + [""] * 9

GOODS = """RICE MEAT VEGE CHICKEN FISH PRAWN NOODLE SOUP EGG TOFU BREAD BUN CAKE BISCUIT COOKIE MILK CHEESE BUTTER SUGAR SALT OIL SAUCE
CHILI PEPPER GARLIC ONION TOMATO POTATO CARROT APPLE ORANGE BANANA LEMON MANGO GRAPE PAPAYA TEA COFFEE TEH KOPI MILO JUICE WATER COLA BEER WINE
SODA LATTE MOCHA NASI MEE AYAM IKAN DAGING KUIH ROTI CANAI GULA GARAM BAWANG SAYUR TELUR TISSUE SOAP SHAMPOO BRUSH PASTE TOWEL BOTTLE CUP PLATE
BOWL SPOON FORK KNIFE PAN POT TRAY BAG BOX PAPER PEN PENCIL INK GLUE TAPE FILE FOLDER BOOK NOTE CARD ENVELOPE STAPLE CLIP RULER MARKER STICKER LABEL
PIPE ELBOW SOCKET VALVE SCREW NUT BOLT WASHER NAIL HAMMER DRILL BIT SAW BLADE CEMENT PAINT ROLLER THINNER WIRE CABLE PLUG SWITCH BULB LED LAMP FAN
BATTERY ADAPTOR CHARGER PHONE CASE CABLE USB MOUSE KEYBOARD HINGE LOCK KEY CHAIN ROPE HOSE PUMP FILTER GASKET TYRE TUBE BRAKE PAD LAMP PETROL DIESEL
PRIMAX RON95 RON97 ENGINE SHIRT PANTS DRESS SKIRT SHOE SOCK BELT HAT GLOVE WATCH RING TOY DOLL BALL CAR ROBOT PUZZLE PLANT SEED SOIL FLOWER VASE
FRAME MIRROR CLOCK TABLE CHAIR SHELF MAT CURTAIN PILLOW SHEET BLANKET SPICY FRIED STEAM ROAST GRILLED HOT ICED SET COMBO MEAL LUNCH DINNER SNACK
TABLET CAPSULE SYRUP CREAM LOTION MASK BANDAGE COTTON VITAMIN SERVICE LABOUR PARKING DELIVERY REPAIR WASH CUT""".split()
DESCRIPTORS = """SMALL LARGE BIG MINI JUMBO REGULAR RED BLUE GREEN WHITE BLACK YELLOW GOLD SILVER BROWN FRESH ORGANIC PLAIN EXTRA DOUBLE SUPER ULTRA HEAVY
LIGHT SOFT HARD SWEET SOUR SALTY DARK ORIGINAL CLASSIC SPECIAL PREMIUM NORMAL KIDS FAMILY HALF FULL DRY WET LONG SHORT ROUND SQUARE FLAT THICK THIN""".split()
TRADES = """HARDWARE TRADING ENTERPRISE STATIONERY RESTAURANT RESTORAN CAFE BAKERY MART MINIMARKET SUPERMARKET HYPERMARKET PHARMACY STORE SHOP
BOOKSTORE GIFT HOME DECO FASHION ELECTRICAL MACHINERY MOTOR AUTO TYRE PETROLEUM STATION SERVICES SUPPLIES HOLDINGS FOOD SEAFOOD KITCHEN CORNER
DIY HOUSE CENTRE CENTER MARKETING INDUSTRIES INTERNATIONAL GLOBAL RETAIL GROUP BEAUTY OPTICAL PET WORLD KOPITIAM CATERING BISTRO GRILL BAR HOTEL
FURNITURE TEXTILE JEWELLERY PHOTO PRINT GARDEN FARM FRESH FROZEN WINES LAUNDRY CLINIC DENTAL TOYS SPORTS""".split()
CITIES = {
    "MY": """KUALA LUMPUR|JOHOR BAHRU|SHAH ALAM|PETALING JAYA|KLANG|IPOH|PUCHONG|SUBANG JAYA|CHERAS|KAJANG|SERI KEMBANGAN|MELAKA|SEREMBAN|
    GEORGE TOWN|BUTTERWORTH|SKUDAI|MASAI|BATU PAHAT|KLUANG|MUAR|AMPANG|RAWANG|SETIA ALAM|BANGI|CYBERJAYA|KUANTAN""".replace("\n    ", ""),
    "SG": "SINGAPORE", "US": "SPRINGFIELD|PORTLAND|AUSTIN|DENVER|FRESNO|BOISE|TAMPA|MADISON|SEATTLE|OAKLAND",
    "UK": "LONDON|LEEDS|BRISTOL|YORK|DERBY|READING|EXETER|CARDIFF", "AU": "SYDNEY|PERTH|HOBART|BRISBANE|ADELAIDE",
    "DE": "BERLIN|HAMBURG|KOELN|LEIPZIG|BREMEN|DRESDEN", "FR": "PARIS|LYON|NANTES|LILLE|RENNES",
    "PT": "LISBOA|PORTO|BRAGA|FARO|COIMBRA", "IN": "MUMBAI|PUNE|DELHI|CHENNAI|KOCHI",
}  # fmt: skip


def word(rng: Random, low: int = 1, high: int = 3) -> str:
    """One pronounceable upper-case word of `low` to `high` syllables."""
    out = "".join(rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS) for _ in range(rng.randint(low, high)))
    return out.upper() if len(out) > 1 else (out + "n").upper()


def initials(rng: Random) -> str:
    letters = [rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 4))]
    return rng.choice(["{}", "{}", "{}."]).format(rng.choice(["", ".", ".", "&"][:2]).join(letters))


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
        parts.append(rng.choice(["1", "2", "3", "4", "5", "10", "100", "888"]))
    if rng.random() < 0.6:
        parts.append(word(rng) if rng.random() < 0.85 else initials(rng))
    if rng.random() < 0.35:
        parts.append(rng.choice(DESCRIPTORS))
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        parts.append(rng.choice(GOODS) if rng.random() < 0.65 else word(rng))
    extra = rng.random()
    if extra < 0.28:
        n = rng.choice([rng.randint(1, 9), rng.randint(10, 99), rng.choice([100, 125, 200, 250, 330, 350, 500, 750, 900])])
        parts.append(rng.choice(["{}ML", "{}G", "{}GM", "{}KG", "{}MM", "{}CM", "{}L", "{}'S", "{}PCS", "{}S", "({})", "X{}", '{}"', "{}W"]).format(n))
    elif extra < 0.40:
        parts.append(rng.choice(["(B)", "(S)", "(L)", "(M)", "(HOT)", "(ICE)", "PKT", "SET", "NO.2", "A4", "70%", "(HALF)", "- L", "+", "&", "W/"]))
        if parts[-1] in {"+", "&", "W/"}:
            parts.append(rng.choice(GOODS))
    elif extra < 0.46:
        parts.append(f"{rng.randint(2, 99)}{rng.choice('X*/')}{rng.randint(2, 99)}{rng.choice(['MM', 'CM', 'G', ''])}")
    text = " ".join(parts)
    if rng.random() < 0.06:
        text = text.replace(" ", rng.choice(["-", "/", "."]), 1)
    return text


def person(rng: Random) -> str:
    return " ".join(word(rng, 1, 2) for _ in range(rng.randint(1, 3)))


def vendor(rng: Random, locale: str) -> str:
    """A shop or company name in the forms of its country."""
    core = " ".join(word(rng, 1, 3) for _ in range(rng.choice([1, 1, 2, 2, 3])))
    if rng.random() < 0.15:
        core = initials(rng) + (" " + word(rng) if rng.random() < 0.5 else "")
    if rng.random() < 0.06:
        core = rng.choice(["99", "7", "888", "1", "21", "3", "101"]) + " " + core
    if rng.random() < 0.08:
        core = f"{core} {rng.choice(['&', 'AND'])} {word(rng)}"
    if rng.random() < 0.05:
        core += "'S"
    trades = " ".join(rng.sample(TRADES, rng.choice([0, 1, 1, 1, 2, 2])))
    pattern = rng.random()
    name = f"{core} {trades}".strip()
    if locale == "MY":
        if pattern < 0.12:
            name = f"{rng.choice(['RESTORAN', 'KEDAI MAKAN', 'KEDAI BUKU', 'PERNIAGAAN', 'SYARIKAT', 'PASARAYA', 'KEDAI UBAT', 'STESEN MINYAK'])} {core}"
        if rng.random() < 0.58:
            region = rng.choice(["(M)", "(KL)", "(JOHOR)", "(MALAYSIA)", f"({word(rng)})", "CO. (M)"]) + " " if rng.random() < 0.3 else ""
            name += " " + region + rng.choice(["SDN BHD", "SDN BHD", "SDN. BHD.", "SDN.BHD.", "S/B", "SDN BHD.", "PLT", "BERHAD"])
        elif rng.random() < 0.2:
            name += f" ({word(rng, 2, 3)})"
    else:
        suffixes = {"SG": ["PTE LTD", "PTE. LTD.", ""], "US": ["INC", "LLC", "INC.", "", "", "CO."], "UK": ["LTD", "PLC", "", "", "LIMITED"], "AU": ["PTY LTD", "", ""],
                    "DE": ["GMBH", "KG", "OHG", "E.K.", "GMBH & CO. KG"], "FR": ["SARL", "SAS", "SA", ""], "PT": ["LDA", "S.A.", "UNIPESSOAL LDA", ""], "IN": ["PVT LTD", "STORES", "TRADERS", "& SONS", "LTD"]}  # fmt: skip
        name = f"{name} {rng.choice(suffixes[locale])}".strip()
        if rng.random() < 0.15:
            name += f" #{rng.randint(1, 999)}" if locale == "US" else f" {rng.choice(CITIES[locale].split('|'))}"
    return name


def address(rng: Random, locale: str) -> list[str]:
    """Two to four lines."""
    city, street, number = rng.choice(CITIES[locale].split("|")), word(rng, 2, 3), rng.randint(1, 199)
    if locale == "MY":
        unit = rng.choice(["NO {}", "NO. {}", "NO.{}", "LOT {}", "{}", "{}-1", "G-{}", "{}G", "LOT P.T. {}"]).format(number)
        road = rng.choice(["JALAN {}", "JLN {}", "JALAN {} {}/{}", "JALAN {} {}", "LORONG {}", "PERSIARAN {}", "JALAN TUN {}"]).format(street, rng.randint(1, 30), rng.randint(1, 20))
        area = rng.choice(["TAMAN {}", "BANDAR {}", "KAWASAN PERINDUSTRIAN {}", "DESA {}", "SEKSYEN {}", "PUSAT PERNIAGAAN {}", "PJU {}", "DAMANSARA {}"]).format(word(rng))
        post, state = digits(rng, 5), rng.choice(["SELANGOR", "JOHOR", "PERAK", "KEDAH", "PENANG", "MALAYSIA", "W.P.", "SELANGOR D.E.", "SELANGOR DARUL EHSAN"])
        lines = [f"{unit}, {road},", f"{area},", f"{post} {city}, {state}"] if rng.random() < 0.7 else [f"{unit} {road}", f"{area}, {post}", city]
        return lines if rng.random() < 0.75 else [" ".join(lines[:2]), *lines[2:]]
    if locale == "US":
        return [f"{number} {street} {rng.choice(['ST', 'AVE', 'BLVD', 'RD', 'DRIVE'])}", f"{city}, {rng.choice(['CA', 'TX', 'WA', 'OR', 'CO', 'FL', 'WI'])} {digits(rng, 5)}"]
    if locale == "UK":
        return [f"{number} {street} {rng.choice(['STREET', 'ROAD', 'LANE', 'HIGH ST'])}", f"{city} {word(rng, 1, 1)[:2]}{rng.randint(1, 20)} {rng.randint(1, 9)}{rng.choice(['AB', 'QT', 'XY', 'DE'])}"]
    if locale in {"DE", "FR", "PT"}:
        prefix = {"DE": "{}STR. {}", "FR": "{1} RUE {0}", "PT": "RUA {} {}"}[locale]
        return [prefix.format(street, number), f"{digits(rng, 5) if locale != 'PT' else digits(rng, 4) + '-' + digits(rng, 3)} {city}"]
    if locale == "SG":
        return [f"{number} {street} {rng.choice(['ROAD', 'AVENUE 2', 'STREET 11', 'LANE'])} #0{rng.randint(1, 9)}-{rng.randint(1, 99)}", f"SINGAPORE {digits(rng, 6)}"]
    return [f"{number} {street} {rng.choice(['ROAD', 'STREET', 'MARG', 'PDE'])}", f"{city} {digits(rng, 6 if locale == 'IN' else 4)}"]


def phone(rng: Random, locale: str) -> str:
    if locale == "MY":
        n = digits(rng, 8)
        return rng.choice(["0{}-{}{}", "0{}-{} {}", "+60{}-{} {}", "(0{}){}{}"]).format(rng.choice("34567"), n[:4], n[4:])
    if locale == "US":
        return f"({digits(rng, 3)}) {digits(rng, 3)}-{digits(rng, 4)}"
    return rng.choice(["0{} {}", "+{} {}", "0{}/{}"]).format(digits(rng, 3), digits(rng, 7))


FILLER = """PLEASE KEEP THIS RECEIPT FOR PROOF OF PURCHASE|CUSTOMER SERVICE {tel}|THIS IS A COMPUTER GENERATED RECEIPT|NO SIGNATURE IS REQUIRED|EXCHANGE IS ALLOWED WITHIN {n} DAYS WITH RECEIPT|
STRICTLY NO CASH REFUND|KEEP THE INVOICE FOR APPLICABLE RETURNS|LIKE US ON FACEBOOK|FOLLOW US ON FACEBOOK AND INSTAGRAM|WWW.{w}.COM.MY|WWW.{w}.COM|EMAIL: {w}@{w}.COM|PRICE INCLUSIVE OF GST|
MEMBER CARD NO: {d}|MEMBERSHIP : {d}|POINTS EARNED: {n}|POINT BALANCE : {d}|APPROVAL CODE: {d}|TERMINAL ID {d}|BATCH NO: {d}|TRACE NO {d}|REF NO. {d}|SALESPERSON : {w}|SALES PERSON: {w} {w}|
CUSTOMER: CASH|CUSTOMER NAME : {w} {w}|ATTN: {w}|BILL TO: {w} {w}|MEMBER: {w}|QUEUE NO: {n}|ORDER NO : {d}|ORDER {d}|TABLE NO: {n}|TAKE AWAY|DINE IN|EAT IN|PAX {n}|POS NO: {n}|COUNTER NO. {n}|
SHIFT: {n}|BRANCH : {w}|OUTLET: {w} {w}|BUSINESS HOURS: 10AM TO 10PM|OPEN DAILY 8.30AM - 9.30PM|ANY COMPLAINTS PLEASE CALL {tel}|WHATSAPP {tel}|E. & O.E.|GOODS SOLD ARE NOT REFUNDABLE|
CHECK YOUR CHANGE BEFORE LEAVING THE COUNTER|WE ACCEPT ALL MAJOR CREDIT CARDS|SEASONS GREETINGS|HAPPY NEW YEAR|YOUR FEEDBACK IS VALUABLE TO US|SCAN HERE TO JOIN OUR LOYALTY PROGRAM|DUPLICATE COPY|
REPRINT|ORIGINAL|*** {w} ***|(PRICES INCLUDE {n}% TAX)|RECEIVED ABOVE GOODS IN GOOD ORDER AND CONDITION|ISSUED BY: {w}|PREPARED BY : {w} {w}|VALID WITHIN {n} MONTHS|PLEASE RETAIN FOR YOUR RECORDS|
POWERED BY {w} SYSTEM|{w} POS SOLUTION|CUSTOMER COPY|BUY {w} ONLINE|TERMS: C.O.D|TERMS : CASH|PAYMENT BY CASH|NO. OF PRINT: {n}|DOC NO. : CS{d}|GST TAX CODE|SELF SERVICE|WELCOME|NON-HALAL|
PARKING RATE APPLIES|COME AGAIN SOON|DELIVERY AVAILABLE|TEL ORDER {tel}|TIME IN: {n}|STORE: {d}|MANAGER {w}|HOTLINE: {tel}|COMPLAINTS AND SUGGESTIONS: {tel}"""


def filler(rng: Random, locale: str, low: int, high: int) -> list[str]:
    """Lines that say nothing about the sale, as every till prints them."""
    phrases = FILLER.replace("\n", "").split("|")
    return [rng.choice(phrases).format(tel=phone(rng, locale), w=word(rng), d=digits(rng, rng.randint(3, 9)), n=rng.randint(1, 30)) for _ in range(rng.randint(low, high))]

"""What passengers call airports and carriers."""

from __future__ import annotations

AIRPORTS = {"EWR": "Newark Liberty", "JFK": "John F. Kennedy", "LGA": "LaGuardia"}
"""Those whose departures are known."""

_CITIES = """
ABQ Albuquerque; ACK Nantucket; ALB Albany; ANC Anchorage; ATL Atlanta; AUS Austin; AVL Asheville
BDL Hartford; BGR Bangor; BHM Birmingham; BNA Nashville; BOS Boston; BQN Aguadilla; BTV Burlington
BUF Buffalo; BUR Burbank; BWI Baltimore; BZN Bozeman; CAE Columbia; CAK Akron; CHO Charlottesville
CHS Charleston; CLE Cleveland; CLT Charlotte; CMH Columbus; CRW Charleston WV; CVG Cincinnati
DAY Dayton; DCA Washington Nat'l; DEN Denver; DFW Dallas-Fort Worth; DSM Des Moines; DTW Detroit
EGE Eagle-Vail; EWR Newark; EYW Key West; FLL Fort Lauderdale; GRR Grand Rapids; GSO Greensboro
GSP Greenville; HDN Steamboat Springs; HNL Honolulu; HOU Houston Hobby; IAD Washington Dulles
IAH Houston; ILM Wilmington; IND Indianapolis; JAC Jackson Hole; JAX Jacksonville; JFK New York JFK
LAS Las Vegas; LAX Los Angeles; LEX Lexington; LGA New York LaGuardia; LGB Long Beach
MCI Kansas City; MCO Orlando; MDW Chicago Midway; MEM Memphis; MHT Manchester; MIA Miami
MKE Milwaukee; MSN Madison; MSP Minneapolis; MSY New Orleans; MTJ Montrose; MVY Martha's Vineyard
MYR Myrtle Beach; OAK Oakland; OKC Oklahoma City; OMA Omaha; ORD Chicago O'Hare; ORF Norfolk
PBI Palm Beach; PDX Portland OR; PHL Philadelphia; PHX Phoenix; PIT Pittsburgh; PSE Ponce
PSP Palm Springs; PVD Providence; PWM Portland ME; RDU Raleigh; RIC Richmond; ROC Rochester
RSW Fort Myers; SAN San Diego; SAT San Antonio; SAV Savannah; SBN South Bend; SDF Louisville
SEA Seattle; SFO San Francisco; SJC San José; SJU San Juan; SLC Salt Lake City; SMF Sacramento
SNA Orange County; SRQ Sarasota; STL St. Louis; STT St. Thomas; SYR Syracuse; TPA Tampa; TUL Tulsa
TVC Traverse City; TYS Knoxville; XNA Bentonville
"""

_CARRIERS = """
9E Endeavor Air; AA American; AS Alaska; B6 JetBlue; DL Delta; EV ExpressJet; F9 Frontier
FL AirTran; HA Hawaiian; MQ Envoy; OO SkyWest; UA United; US US Airways; VX Virgin America
WN Southwest; YV Mesa
"""


def _read(text: str) -> dict[str, str]:
    entries = (entry.strip() for entry in text.strip().replace("\n", ";").split(";"))
    return {code: name for code, _, name in (entry.partition(" ") for entry in entries)}


_cities, _carriers = _read(_CITIES), _read(_CARRIERS)


def city(code: str) -> str:
    """Return where an airport is; its code where that is not known."""
    return _cities.get(code, code)


def carrier(code: str) -> str:
    """Return the name of a carrier; its code where that is not known."""
    return _carriers.get(code, code)

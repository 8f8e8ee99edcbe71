"""English scenes, words and moods for the passages."""

from __future__ import annotations

from .passages_lexicon import LanguageData, Word, gendered, hinted, lines, parse_devices, plain


def _noun(w: str, gender: str = "") -> Word:
    article = "an" if w[0] in "aeiou" else "a"
    return Word(w, a=f"{article} {w}", the=f"the {w}")


def _name(w: str, gender: str) -> Word:
    he, him, his = ("he", "him", "his") if gender == "m" else ("she", "her", "her")
    return Word(w, he=he, him=him, his=his)


def _place(w: str, preposition: str) -> Word:
    return Word(w, the=f"the {w}", loc=f"{preposition} the {w}")


_MEN = "m: Tom Henry Oliver Walter Simon Edward Martin Arthur Robert Peter Daniel Hugh Leonard Victor"
_WOMEN = "f: Anna Clara Emily Margaret Helen Ruth Alice Rose Lucy Edith Nora Martha Julia Sarah"

_LEXICON = {
    "m": gendered(_MEN, _name),
    "f": gendered(_WOMEN, _name),
    "n": gendered(f"{_MEN} | {_WOMEN}", _name),
    "w": plain(
        lines("""
        one evening
        that evening
        one winter morning
        after supper
        late at night
        on a rainy afternoon
        before the guests arrived
        at the end of the summer
        a little before midnight
        on the first day of the holidays
        shortly after sunrise
        on a cold Sunday
    """)
    ),
    "o": [
        _noun(w)
        for w in (
            "key ring letter book watch lamp knife photograph coin map mirror comb candle diary necklace pipe envelope "
            "compass bottle box brooch spoon portrait fan medal"
        ).split()
    ],
    "c": gendered(
        "in: drawer chest cupboard basket trunk wardrobe stove barrel desk vase | under: bed carpet pillow bench "
        "stairs | behind: curtain clock bookcase barn fountain",
        _place,
    ),
    "r": gendered(
        "in: kitchen library cellar attic hall garden stable chapel parlour workshop courtyard nursery study tower "
        "greenhouse",
        _place,
    ),
    "a": [
        _noun(w)
        for w in ("cat dog fox owl horse goat hedgehog rabbit crow swan donkey lamb parrot squirrel goose").split()
    ],
    "i": [_noun(w) for w in ("piano violin flute cello guitar trumpet harp organ clarinet accordion drum").split()],
    "j": [
        _noun(w)
        for w in (
            "baker doctor sailor teacher painter tailor gardener miller lawyer fisherman carpenter blacksmith shepherd "
            "engineer priest"
        ).split()
    ],
    "k": plain("red blue green yellow white black grey brown purple".split()),
    "e": plain("bread cheese apples pears honey eggs butter cherries ham fish onions grapes".split()),
    "b": plain("roses tulips lilies violets daisies poppies sunflowers carnations bluebells".split()),
    "t": plain("London York Oxford Bath Dover Bristol Boston Venice Dublin Lisbon Vienna Cambridge".split()),
    "s": plain(("January February March April May June July August September October November December").split()),
    "d": plain("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
    "u": plain("three four five six seven eight nine ten eleven twelve thirteen fifteen twenty".split()),
    "pet": plain("Rex Bruno Pepper Ginger Shadow Prince Biscuit Smoke Lucky".split()),
    "mat": plain("gold silver copper iron glass ivory marble leather amber bronze".split()),
    "kin": [_noun(w) for w in "sister brother uncle aunt grandmother grandfather cousin mother father".split()],
    "tree": [_noun(w) for w in "oak lime birch chestnut walnut willow beech cypress elm pine".split()],
    "v": [_noun(w) for w in "train boat bicycle carriage ship sledge bus tram cart".split()],
    "dr": plain("tea coffee wine milk cider water cocoa lemonade beer".split()),
    "fear": [_noun(w) for w in "dark storm thunder sea fire fog forest wind snow".split()],
    "sight": [_noun(w) for w in "sea desert mountains palace lighthouse jungle cathedral volcano ocean island".split()],
    "cl": [_noun(w) for w in "hat coat scarf glove shawl belt boot jacket cap apron".split()],
    "body": plain("hand foot knee shoulder arm finger ankle elbow leg".split()),
    "x": hinted(
        """
        - | umbrella | rain | The rain had not stopped since noon
        - | candle | dark | The corridor was completely dark
        - | key | locked | The heavy door was locked
        - | pen | write | There was a long letter to write before morning
        - | axe | firewood | There was no more firewood for the stove
        - | bucket | well | They had to draw water from the well
        - | needle | sewn | The torn sleeve had to be sewn before the ball
        - | ladder | roof | Someone had to climb on the roof
        - | spade | hole | A deep hole had to be dug in the garden
        - | broom | dust | There was dust on the floor of every room
        - | clock | time | Nobody could tell what time it was
        - | map | way | Nobody knew the way through the hills
    """,
        _noun,
    ),
    "y": hinted(
        """
        - | baker | dough | rose at three and kneaded the dough
        - | fisherman | nets | mended the nets and rowed out on the lake
        - | teacher | blackboard | wrote the sum on the blackboard
        - | doctor | patient | listened to the heart of the last patient
        - | tailor | trousers | measured the cloth and cut out the trousers
        - | gardener | hedges | watered the beds and trimmed the hedges
        - | blacksmith | anvil | hammered the hot iron on the anvil
        - | shepherd | flock | led the flock back over the hill
        - | painter | brushes | washed the brushes and covered the canvas
        - | barber | razor | sharpened the razor and combed the beard of a guest
        - | pilot | plane | landed the plane in the fog
        - | judge | sentence | put on the robe and read out the sentence
    """,
        _noun,
    ),
    "z": hinted(
        """
        - | station | trains | The trains whistled and travellers dragged their trunks
        - | harbour | ships | The ships rocked and the sailors threw ropes
        - | church | priest | The priest lit the candles and the choir sang softly
        - | school | pupils | The pupils closed their copybooks and the bell rang
        - | theatre | actors | The actors bowed and the curtain fell
        - | hospital | nurses | The nurses ran from bed to bed
        - | market | stalls | Women shouted prices from the stalls
        - | mill | flour | White flour lay on everything and the great wheel turned
        - | prison | bars | The guards rattled at the iron bars
        - | bakery | loaves | Warm loaves lay in the window
        - | bank | money | Clerks counted the money behind thick glass
        - | museum | statues | Visitors walked slowly between the statues and the old paintings
    """,
        _noun,
    ),
    "q": hinted(
        """
        - | dog | barking | Something was barking behind the gate
        - | cat | purring | Something was purring on the windowsill
        - | horse | neighing | Something was neighing in the yard
        - | sheep | bleating | Something was bleating behind the hedge
        - | owl | hooting | Something was hooting in the old tower
        - | cow | mooing | Something was mooing in the mist
        - | pig | grunting | Something was grunting under the bench
        - | duck | quacking | Something was quacking by the pond
        - | cock | crowing | Something was crowing on the dunghill
        - | bee | buzzing | Something was buzzing against the window
        - | mouse | squeaking | Something was squeaking under the floor
        - | frog | croaking | Something was croaking in the wet grass
    """,
        _noun,
    ),
}

_MOODS = lines("""
    Outside the wind shook the shutters.
    The fire had almost gone out.
    It was so quiet that one could hear the clock.
    Snow was falling on the empty street.
    The moon stood over the roofs.
    A smell of wet earth came through the window.
    Nobody said a word for a long while.
    Far away a bell was ringing.
    The last light lay on the floor.
    The stairs creaked as they always did.
    In the next room somebody laughed.
    The river was high that year.
    The days went by slowly.
    The lamp threw long shadows on the wall.
    Leaves were drifting across the path.
    The rain had stopped at last.
    The children were already asleep.
    The whole village talked about it.
    The tea was getting cold.
    A carriage rolled past the house.
    The swallows had come back early.
    It had been a long and dusty day.
    The old servant shook her head.
    Then the weeks turned into months.
    Behind the wall the neighbours were quarrelling.
    Everything smelled of smoke and soap.
""")

_DEVICES = parse_devices("""
[letter returned]
{w.W} {n} read aloud the letter that {n2} had brought from the city.
{w.W} {n2} came up the stairs with a letter and asked {n} to read it.
> When the last page was read, {n} folded the paper and gave it back to {n2}
> {n} wept a little, and then went down into the kitchen to thank {n2}

[hidden object]
{w.W} {n} hid {o.the} {c.loc} and told nobody about it.
{n} wrapped {o.the} in a cloth and pushed it out of sight {c.loc}.
> Years later a child put a hand into that place and pulled out {o.the}
> When {n2} cleaned the house in spring, there it was again, {o.the}

[hiding place]
{w.W} {n} laid {o.the} {c.loc}, where no thief would look.
"Put it {c.loc}," whispered {n}, and {n2} hid {o.the} there.
> When the danger was over, {n} walked straight to {c.the}
> The police searched everywhere, but nobody looked {c.loc}

[pair of rooms]
{n} was waiting in {r.the} and {n2} in {r2.the}.
{w.W} {n} worked in {r.the}, while {n2} slept in {r2.the}.
> At the first cry {n2} came running out of {r2.the}
> When somebody called for {n}, a voice answered from {r.the}

[colour]
{n} wore a {k} coat and {n2} a {k2} one.
For the feast {n} had bought a {k} coat, and {n2} had dyed the old one {k2}.
> In the crowd we knew {n} at once, because the coat was {k}
> Then somebody in the fog waved to us, and it was {n2}, for the coat was {k2}

[instrument]
Every evening {n} played {i.the} while {n2} practised {i2.the}.
{n} had learned {i.the} from an old aunt, but {n2} loved {i2.the}.
> After {n} had gone away, nobody in the house dared to touch {i.the}
> When {n2} turned twenty, the family bought a new {i2}

[animal found]
{w.W} {n} found {a.a} in the garden, hungry and trembling.
Behind the shed {n} discovered {a.a} with a wounded leg.
> All night {n} lay awake and thought about {a.the}
> In the morning {n2} brought a bowl of water and knelt down beside {a.the}

[profession]
{n}'s father was {j.a}, and so was the grandfather.
In that family every eldest child had become {j.a}, and {n} was the eldest.
> When the teacher asked about the future, {n} answered at once: {j.a}
> At twenty {n} left the village and became, of course, {j.a}

[town]
{n} was born in {t}, but had to leave it as a child.
On the wall of {r.the} hung an old view of {t}, where {n} had been happy.
> In old age {n} had only one wish, to see once more the roofs of {t}
> "One day," {n} told the grandchildren, "we shall all travel to {t}

[market]
In the morning {n} went to market for {e} and {n2} for {e2}.
"Bring me some {e}," said the cook to {n}, and {n2} was sent for {e2}.
> An hour later {n} came back with a basket full of {e}
> But {n2} had spent all the money on something other than {e2}

[flowers]
{n} had planted {b} below the window, for they were the flowers {n2} loved.
"When I come home," {n2} had written to {n}, "let there be {b} in every room."
> On the day of the return {n} went into the garden and cut all the {b}
> So {n} filled the whole house, from the cellar to the attic, with {b}

[person addressed]
"Come in, {n}," said the old woman, "and shut the door behind you."
"You are late, {n}," said {n2} without looking up from the book.
> There was a chair by the fire, and in it, without a word, sat down {n}
> A second cup stood on the table, and it was meant for {n}

[letter from]
The letter had no stamp, but the writing was certainly that of {n}.
For eleven years nobody had heard from {n}, and then a parcel came.
> {n2} sat down on the stairs and whispered again and again the name of {n}
> {n2} kissed the paper and knew that there was still hope for {n}

[needed thing]
{x.s}. {n} got up with a sigh.
{x.s}. "I will see to it," said {n}.
> {n} looked in every corner of the house for {x.the}
> From the shed came {n2}, carrying {x.a}

[relative]
Only one person had ever understood {n}: {n.his} {kin}, who lived by the sea.
After the war {n} lived alone with {n.his} {kin} in two small rooms.
> When the doctor asked whom they should call, {n} named {n.his} {kin}
> In the evenings {n} wrote long letters, and all of them began: My dear {kin}

[month]
They had first met in {s}, on the steps of {r.the}.
"I shall be back in {s}," said {n}, and the coach drove off.
> The year turned slowly, and then at last it was {s}
> {n2} looked at the calendar every morning and longed for {s}

[weekday]
The boat to the island went only once a week, on {d}.
{n} had promised to come for supper on {d}.
> All week {n2} counted the hours until {d}
> So {n2} packed the bag and waited patiently for {d}

[number]
{n} lived in the house with the number {u}, at the end of the lane.
The key that {n} had found bore the number {u}.
> {n2} walked from door to door and stopped in front of number {u}
> "Which one is it?" asked {n2}, and the porter answered: number {u}

[pet]
The dog was old and half blind, and it was called {pet}.
{n} had given the puppy the name of {pet}, after a hero in a book.
> {w.W} {n} stood at the gate and shouted into the dark: {pet}
> On the little stone under the tree {n2} wrote one word, {pet}

[material]
The box that {n} inherited was not of {mat2}, but of pure {mat}.
"Is it {mat2}?" asked {n}. The old dealer laughed. "No, it is {mat}."
> {n2} held the thing against the light and saw that it was indeed {mat}
> Nobody in the house had ever owned anything made of {mat}

[three suspects]
{n}, {n2} and {n3} had been in {r.the}, but {n2} and {n3} had left before ten.
Three people knew the secret: {n}, {n2} and {n3}. Now {n2} and {n3} were far away.
> So only one could have taken {o.the}, and that was {n}
> {o.The} was gone, and everybody looked at {n}

[gift]
For {n2.his} birthday {n} gave {n2} {o.a} in a paper bag.
"This is for you," said {n}, and laid {o.a} on the bed of {n2}.
> Even in old age {n2} kept in the bedroom, wrapped in silk, that same {o}
> {n2} sold the house and the land, but never {o.the}

[elder sister]
Of the two sisters {f} was the elder, and {f2} was the more beautiful.
{f} was three years older than her sister {f2}.
> The will said that the elder should have the house, and so it went to {f}
> The younger one was to have the jewels, and so they were given to {f2}

[tree]
In front of the house stood {tree.a} that {n}'s grandfather had planted.
As children {n} and {n2} had cut their names into {tree.the} by the gate.
> When {n} came home after the storm, there was nothing left of {tree.the}
> In summer they drank their coffee in the shade of {tree.the}

[vehicle]
"I will not take {v2.the}," said {n}, "I will come by {v}."
{n} was going to arrive by {v}, and {n2} ran ahead to meet {n.him}.
> {n2} stood for two hours in the cold and waited for {v.the}
> At last there was a noise in the distance, and it was {v.the}

[drink]
{n} never drank {dr2}, but could not live without {dr}.
"{dr.W} or {dr2}?" asked {n2}. "{dr.W}, as always," said {n}.
> Without another question {n2} went into the kitchen and came back with {dr}
> So on the table in front of {n} there stood a large glass of {dr}

[fear]
As a child {n} had been afraid of only one thing: {fear.the}.
{n} feared neither people nor ghosts, but {n.he} feared {fear.the}.
> {n2} took {n.him} by the hand, so that {n} would not have to think of {fear.the}
> And now {n} lay alone in bed and could think of nothing but {fear.the}

[longing]
All {n.his} life {n} had dreamed of {sight.the} in grandmother's picture book.
"When I am grown up," {n} used to say, "I will see {sight.the}."
> {w.W} {n2} opened the curtain, and before them lay {sight.the}
> {n} died in the same small town and never saw {sight.the}

[clothing]
{n} had left {cl.a} on the bench by the lake.
"Where is my {cl}?" asked {n}, and looked under all the chairs.
> Two days later a boy knocked at the door and held out {cl.the}
> {n2} blushed, for under {n2.his} arm was {cl.the}

[work implied]
Every day {m} {y.s}.
For thirty years, day after day, {m} {y.s}.
> Nobody in the village used his name, they just called him the {y}
> "That is an honest man," said {f}, and she married the {y}

[place implied]
{z.s}. {n} stood still and waited.
{z.s}. In the middle of all this stood {n}.
> When it grew dark, {n} turned up {n.his} collar and left the {z}
> {n2} was late, and came running across the square towards the {z}

[animal implied]
{q.s}, and {n} could not sleep.
{q.s}. "Do you hear that?" whispered {n}.
> {n2} took the lantern, went to look and found {q.a}
> "Do not be afraid," said {n2}, "it is only {q.a}

[wound]
{n} had fallen from the ladder and hurt {n.his} {body}.
Since the war {n} had felt every change of weather in {n.his} {body}.
> The doctor came, shook his head and looked for a long time at the {body}
> {n2} warmed some oil and rubbed it gently into the {body}

[choice of two]
On the table lay {o.a} and {o2.a}, and {n} could take only one of them.
"{o.The} or {o2.the}?" asked {n2}. "You must choose."
> {n} left {o2.the} where it was and quickly took {o.the}
> {n} thought for a moment, pushed {o.the} aside and reached for {o2.the}
""")

DATA = LanguageData(lexicon=_LEXICON, moods=_MOODS, devices=_DEVICES)

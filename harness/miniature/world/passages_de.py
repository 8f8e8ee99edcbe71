"""German scenes, words and moods for the passages."""

from __future__ import annotations

from .passages_lexicon import LanguageData, Word, gendered, hinted, lines, parse_devices, plain

# Definite article by case, then the endings of ein/kein/sein (nominative, accusative) and the pronouns.
_ARTICLES = {
    "m": {"nom": "der", "acc": "den", "dat": "dem", "er": "er", "ihn": "ihn"},
    "f": {"nom": "die", "acc": "die", "dat": "der", "er": "sie", "ihn": "sie"},
    "n": {"nom": "das", "acc": "das", "dat": "dem", "er": "es", "ihn": "es"},
}
_ENDINGS = {
    "m": {"e1": "", "e4": "en", "e3": "em", "a1": "er", "a4": "en"},
    "f": {"e1": "e", "e4": "e", "e3": "er", "a1": "e", "a4": "e"},
    "n": {"e1": "", "e4": "", "e3": "em", "a1": "es", "a4": "es"},
}
_CONTRACTED = {"in dem": "im", "in das": "ins", "an dem": "am", "an das": "ans"}


def _noun_forms(w: str, gender: str) -> dict[str, str]:
    """``nom``/``acc``/``dat``/``vom`` with the definite and ``ein``/``einen``/``einem`` with the indefinite article,
    ``er`` and ``ihn`` as pronouns, ``e1``/``e4``/``e3`` endings of ein-words, ``a1``/``a4`` of adjectives after."""
    article, ending = _ARTICLES[gender], _ENDINGS[gender]
    return {
        "nom": f"{article['nom']} {w}",
        "acc": f"{article['acc']} {w}",
        "dat": f"{article['dat']} {w}",
        "vom": f"von der {w}" if gender == "f" else f"vom {w}",
        "ein": f"ein{ending['e1']} {w}",
        "einen": f"ein{ending['e4']} {w}",
        "einem": f"ein{ending['e3']} {w}",
        "er": article["er"],
        "ihn": article["ihn"],
        **ending,
    }


def _noun(w: str, gender: str) -> Word:
    return Word(w, **_noun_forms(w, gender))


def _place(w: str, key: str) -> Word:
    """``key`` is the preposition and the gender, e.g. ``in-f``; ``wo`` says where, ``wohin`` says where to."""
    preposition, _, gender = key.partition("-")
    where = f"{preposition} {_ARTICLES[gender]['dat']}"
    where_to = f"{preposition} {_ARTICLES[gender]['acc']}"
    return Word(
        w,
        wo=f"{_CONTRACTED.get(where, where)} {w}",
        wohin=f"{_CONTRACTED.get(where_to, where_to)} {w}",
        **_noun_forms(w, gender),
    )


def _name(w: str, gender: str) -> Word:
    er, ihn, ihm, sein = ("er", "ihn", "ihm", "sein") if gender == "m" else ("sie", "sie", "ihr", "ihr")
    return Word(w, er=er, ihn=ihn, ihm=ihm, sein=sein)


_MEN = "m: Karl Heinrich Otto Paul Friedrich Jakob Konrad Ludwig Emil Georg Stefan Anton Wilhelm Kurt"
_WOMEN = "f: Johanna Greta Katharina Elisabeth Hanna Luise Magda Frieda Sophie Marie Gertrud Ursula Lena Brigitte"

_LEXICON = {
    "m": gendered(_MEN, _name),
    "f": gendered(_WOMEN, _name),
    "n": gendered(f"{_MEN} | {_WOMEN}", _name),
    "w": plain(
        lines("""
        eines Abends
        an jenem Abend
        an einem Wintermorgen
        nach dem Abendessen
        spät in der Nacht
        an einem regnerischen Nachmittag
        vor der Ankunft der Gäste
        am Ende des Sommers
        kurz vor Mitternacht
        am ersten Ferientag
        bald nach Sonnenaufgang
        an einem kalten Sonntag
    """)
    ),
    "o": gendered(
        "m: Schlüssel Ring Brief Spiegel Kamm Umschlag Kompass Löffel Fächer | f: Uhr Lampe Münze Landkarte Kerze "
        "Kette Pfeife Flasche Schachtel Brille Feder | n: Buch Messer Foto Tagebuch Tuch Bild Armband Medaillon",
        _noun,
    ),
    "c": gendered(
        "in-f: Schublade Truhe Vase | in-m: Schrank Korb Koffer Ofen Schreibtisch | in-n: Fass Regal | unter-n: Bett "
        "Kissen | unter-m: Teppich | unter-f: Bank Treppe | hinter-m: Vorhang Brunnen | hinter-f: Standuhr Scheune",
        _place,
    ),
    "r": gendered(
        "in-f: Küche Bibliothek Kapelle Werkstatt Scheune Dachkammer Mühle | in-m: Keller Garten Stall Hof Saal Salon "
        "Turm | in-n: Arbeitszimmer Kinderzimmer Gewächshaus",
        _place,
    ),
    "a": gendered(
        "f: Katze Eule Ziege Krähe Gans Taube | m: Hund Fuchs Igel Schwan Esel | n: Pferd Kaninchen Lamm Eichhörnchen",
        _noun,
    ),
    "i": gendered("f: Geige Flöte Gitarre Trompete Harfe Orgel Klarinette Trommel | n: Klavier Cello Akkordeon", _noun),
    "j": plain(
        "Bäcker Arzt Seemann Lehrer Maler Schneider Gärtner Müller Anwalt Fischer Tischler Schmied Schäfer "
        "Uhrmacher Pfarrer".split()
    ),
    "k": plain("rot blau grün gelb weiß schwarz grau braun violett".split()),
    "e": plain("Brot Käse Äpfel Birnen Honig Eier Butter Kirschen Schinken Fisch Zwiebeln Trauben".split()),
    "b": plain("Rosen Tulpen Lilien Veilchen Margeriten Mohnblumen Sonnenblumen Nelken Astern".split()),
    "t": plain("Berlin Wien Hamburg Dresden Köln Salzburg Leipzig Venedig München Prag Weimar Heidelberg".split()),
    "s": plain("Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()),
    "d": plain("Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag".split()),
    "u": plain("drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn fünfzehn zwanzig".split()),
    "pet": plain("Rex Bruno Wolf Schatten Prinz Schnuppe Hasso Flocke Bello".split()),
    "mat": plain("Gold Silber Kupfer Eisen Glas Elfenbein Marmor Leder Bernstein Bronze".split()),
    "kin": gendered("f: Schwester Tante Großmutter Kusine Mutter | m: Bruder Onkel Großvater Vetter Vater", _noun),
    "tree": gendered(
        "f: Linde Eiche Birke Buche Tanne Weide Ulme | m: Apfelbaum Nussbaum Birnbaum Ahorn Kirschbaum", _noun
    ),
    "v": gendered("m: Zug Schlitten Bus Wagen | n: Boot Fahrrad Schiff | f: Kutsche Straßenbahn Fähre", _noun),
    "dr": plain("Tee Kaffee Wein Milch Most Wasser Kakao Limonade Bier".split()),
    "fear": gendered("f: Dunkelheit | m: Sturm Donner Wald Nebel Wind Schnee | n: Feuer Meer Gewitter", _noun),
    "sight": gendered(
        "n: Meer Gebirge Schloss | f: Wüste Insel Kathedrale | m: Leuchtturm Vulkan Urwald Palast", _noun
    ),
    "cl": gendered("m: Hut Mantel Schal Handschuh Gürtel Stiefel | f: Jacke Mütze Schürze Weste | n: Halstuch", _noun),
    "body": gendered("f: Hand Schulter Hüfte | m: Fuß Arm Finger Ellbogen | n: Knie Bein Handgelenk", _noun),
    "x": hinted(
        """
        m | Regenschirm | regnete | Seit dem Mittag regnete es ohne Pause
        f | Kerze | dunkel | Im Flur war es vollkommen dunkel
        m | Schlüssel | verschlossen | Die schwere Tür war verschlossen
        f | Feder | schreiben | Bis zum Morgen war ein langer Brief zu schreiben
        f | Axt | Brennholz | Für den Ofen gab es kein Brennholz mehr
        m | Eimer | Brunnen | Man musste Wasser aus dem Brunnen holen
        f | Nadel | genäht | Der zerrissene Ärmel musste vor dem Ball genäht werden
        f | Leiter | Dach | Jemand musste auf das Dach steigen
        m | Spaten | Loch | Im Garten musste ein tiefes Loch gegraben werden
        m | Besen | Staub | In allen Zimmern lag Staub auf dem Boden
        f | Uhr | spät | Niemand wusste, wie spät es war
        f | Landkarte | Weg | Niemand kannte den Weg durch die Berge
    """,
        _noun,
    ),
    "y": hinted(
        """
        m | Bäcker | Teig | stand um drei Uhr auf und knetete den Teig
        m | Fischer | Netze | flickte die Netze und ruderte auf den See hinaus
        m | Lehrer | Tafel | schrieb die Aufgabe an die Tafel
        m | Arzt | Kranken | hörte das Herz des letzten Kranken ab
        m | Schneider | Stoff | maß den Stoff und schnitt die Hosen zu
        m | Gärtner | Beete | goss die Beete und schnitt die Hecken
        m | Schmied | Amboss | hämmerte das heiße Eisen auf dem Amboss
        m | Schäfer | Herde | führte die Herde über den Hügel zurück
        m | Maler | Pinsel | wusch die Pinsel aus und verhängte die Leinwand
        m | Friseur | Kamm | griff zu Schere und Kamm und stutzte die Bärte der Gäste
        m | Müller | Mehl | füllte das Mehl in Säcke und hörte auf das Rad im Bach
        m | Richter | Urteil | zog die Robe an und verlas das Urteil
    """,
        _noun,
    ),
    "z": hinted(
        """
        m | Bahnhof | Züge | Die Züge pfiffen und Reisende schleppten ihre Koffer
        m | Hafen | Schiffe | Die Schiffe schaukelten und Matrosen warfen Taue
        f | Kirche | Pfarrer | Der Pfarrer zündete die Kerzen an und der Chor sang leise
        f | Schule | Schüler | Die Schüler schlossen ihre Hefte und die Glocke läutete
        n | Theater | Schauspieler | Die Schauspieler verbeugten sich und der Vorhang fiel
        n | Krankenhaus | Schwestern | Die Schwestern liefen von Bett zu Bett
        m | Markt | Ständen | Frauen riefen von den Ständen ihre Preise
        f | Mühle | Mehl | Überall lag weißes Mehl und das große Rad drehte sich
        n | Gefängnis | Gittern | Die Wächter rüttelten an den Gittern
        f | Bäckerei | Brote | Warme Brote lagen im Fenster
        f | Bank | Geld | Beamte zählten das Geld hinter dickem Glas
        n | Museum | Statuen | Besucher gingen langsam zwischen den Statuen und alten Gemälden umher
    """,
        _noun,
    ),
    "q": hinted(
        """
        m | Hund | bellte | Hinter dem Tor bellte etwas
        f | Katze | schnurrte | Auf dem Fensterbrett schnurrte etwas
        n | Pferd | wieherte | Im Hof wieherte etwas
        n | Schaf | blökte | Hinter der Hecke blökte etwas
        m | Kuckuck | rief | Im Wald rief etwas immer zweimal
        f | Kuh | muhte | Im Nebel muhte etwas
        n | Schwein | grunzte | Unter der Bank grunzte etwas
        f | Ente | schnatterte | Am Teich schnatterte etwas
        m | Hahn | krähte | Auf dem Misthaufen krähte etwas
        f | Biene | summte | Am Fenster summte etwas
        f | Maus | piepste | Unter dem Fußboden piepste etwas
        m | Frosch | quakte | Im nassen Gras quakte etwas
    """,
        _noun,
    ),
}

_MOODS = lines("""
    Draußen rüttelte der Wind an den Läden.
    Das Feuer war fast erloschen.
    Es war so still, dass man die Uhr ticken hörte.
    Auf die leere Straße fiel Schnee.
    Der Mond stand über den Dächern.
    Durch das Fenster kam der Geruch von nasser Erde.
    Lange sagte niemand ein Wort.
    In der Ferne läutete eine Glocke.
    Das letzte Licht lag auf dem Boden.
    Die Treppe knarrte wie immer.
    Im Nebenzimmer lachte jemand.
    Der Fluss führte in jenem Jahr viel Wasser.
    Die Tage vergingen langsam.
    Die Lampe warf lange Schatten an die Wand.
    Blätter wehten über den Weg.
    Endlich hatte der Regen aufgehört.
    Die Kinder schliefen schon.
    Das ganze Dorf redete darüber.
    Die Suppe wurde kalt.
    Ein Wagen rollte am Haus vorbei.
    Die Schwalben waren früh zurückgekehrt.
    Es war ein langer und staubiger Tag gewesen.
    Die alte Magd schüttelte den Kopf.
    Aus Wochen wurden Monate.
    Hinter der Mauer stritten die Nachbarn.
    Alles roch nach Rauch und Seife.
""")

_DEVICES = parse_devices("""
[letter returned]
{w.W} las {n} den Brief vor, den {n2} aus der Stadt mitgebracht hatte.
{w.W} kam {n2} mit einem Brief die Treppe herauf und bat {n}, ihn vorzulesen.
> Nach der letzten Seite faltete {n} das Papier zusammen und gab es {n2}
> {n} weinte ein wenig, und dann dankte {n.er} mit fester Stimme {n2}

[hidden object]
{w.W} versteckte {n} {o.acc} {c.wo} und sagte niemandem etwas davon.
{n} wickelte {o.acc} in einen Lappen und verbarg alles {c.wo}.
> Jahre später griff ein Kind an diese Stelle und fand dort {o.acc}
> Beim Putzen im Frühling rief {n2} plötzlich laut: Da ist ja {o.nom}

[hiding place]
{w.W} legte {n} {o.acc} {c.wohin}, wo kein Dieb suchen würde.
„Leg es {c.wohin}“, flüsterte {n}, und {n2} versteckte {o.acc} dort.
> Die Polizei suchte überall, nur nicht {c.wo}
> Als die Gefahr vorüber war, zeigte {n} lächelnd auf {c.acc}

[pair of rooms]
{n} wartete {r.wo} und {n2} {r2.wo}.
{w.W} arbeitete {n} {r.wo}, während {n2} {r2.wo} schlief.
> Beim ersten Schrei kam {n2} gelaufen, und zwar aus {r2.dat}
> Als jemand nach {n} rief, kam die Antwort aus {r.dat}

[colour]
Der Mantel von {n} war {k}, der von {n2} war {k2}.
Für das Fest färbte {n} den alten Mantel {k}, und {n2} ließ den neuen {k2} färben.
> In der Menge erkannten wir {n} sofort, denn der Mantel war {k}
> Da winkte uns jemand im Nebel zu, und es war {n2}, denn der Mantel war {k2}

[instrument]
Jeden Abend spielte {n} {i}, während {n2} {i2} übte.
{n} hatte bei einer alten Tante {i} gelernt, {n2} aber spielte lieber {i2}.
> Nach dem Tod von {n} hörte man in diesem Haus nie wieder {i}
> Zum zwanzigsten Geburtstag wünschte sich {n2} ein Konzert für {i2}

[animal found]
{w.W} fand {n} im Garten {a.einen}, hungrig und zitternd.
Hinter dem Schuppen entdeckte {n} {a.einen} mit einem verletzten Bein.
> Die ganze Nacht lag {n} wach und dachte an {a.acc}
> Am Morgen brachte {n2} eine Schale Wasser und kniete sich neben {a.acc}

[profession]
Der Vater von {m} war {j}, und der Großvater war es auch.
In dieser Familie wurde der älteste Sohn immer {j}, und {m} war der älteste.
> Als die Lehrerin nach der Zukunft fragte, antwortete {m} sofort: {j}
> Mit zwanzig verließ {m} das Dorf und wurde natürlich {j}

[town]
{n} war in {t} geboren, musste die Stadt aber als Kind verlassen.
An der Wand hing eine alte Ansicht von {t}, wo {n} glücklich gewesen war.
> Im Alter hatte {n} nur einen Wunsch: noch einmal die Dächer von {t}
> „Eines Tages“, sagte {n} zu den Enkeln, „fahren wir alle nach {t}

[market]
Am Morgen ging {n} auf den Markt und kaufte {e}, {n2} dagegen {e2}.
„Ich brauche {e}“, sagte die Köchin zu {n}, und {n2} sollte {e2} holen.
> Eine Stunde später kam {n} zurück, und im Korb lag nichts als {e}
> Doch {n2} gab das ganze Geld für etwas anderes aus als für {e2}

[flowers]
{n} hatte unter dem Fenster {b} gepflanzt, denn {n2} liebte sie.
„Wenn ich heimkomme“, hatte {n2} geschrieben, „sollen überall {b} stehen.“
> Am Tag der Rückkehr ging {n} in den Garten und schnitt alle {b}
> So schmückte {n} das ganze Haus vom Keller bis zum Dach mit {b}

[person addressed]
„Komm herein, {n}“, sagte die alte Frau, „und mach die Tür hinter dir zu.“
„Du kommst spät, {n}“, sagte {n2}, ohne vom Buch aufzusehen.
> Am Feuer stand ein Stuhl, und ohne ein Wort setzte sich darauf {n}
> Eine zweite Tasse stand auf dem Tisch, und sie war bestimmt für {n}

[letter from]
Der Brief trug keine Marke, aber die Schrift war ohne Zweifel die von {n}.
Elf Jahre lang hatte niemand etwas von {n} gehört, dann kam ein Paket.
> {n2} setzte sich auf die Treppe und flüsterte immer wieder den Namen {n}
> {n2} küsste das Papier und wusste: Es gab noch Hoffnung für {n}

[needed thing]
{x.s}. Mit einem Seufzer stand {n} auf.
{x.s}. „Ich kümmere mich darum“, sagte {n}.
> {n} suchte im ganzen Haus, aber nirgends fand sich {x.ein}
> Aus dem Schuppen kam {n2} und brachte {x.einen}

[relative]
Nur ein Mensch hatte {n} je verstanden: {kin.nom}, weit weg am Meer.
Nach dem Krieg lebte {n} mit {n.sein}{kin.e3} {kin} in zwei kleinen Zimmern.
> Der Arzt fragte, wen man rufen solle, und {n} nannte {n.sein}{kin.e4} {kin}
> Am Abend schrieb {n} lange Briefe, und jeder begann: Lieb{kin.a1} {kin}

[month]
Im {s} hatten sie sich zum ersten Mal gesehen, auf der Treppe vor dem Saal.
„Im {s} bin ich wieder da“, sagte {n}, und die Kutsche fuhr davon.
> Langsam drehte sich das Jahr, und endlich war es wieder {s}
> {n2} sah jeden Morgen in den Kalender und wartete auf den {s}

[weekday]
Das Boot zur Insel fuhr nur am {d}.
{n} hatte versprochen, am {d} zum Essen zu kommen.
> Die ganze Woche zählte {n2} die Stunden bis zum {d}
> Also packte {n2} die Tasche und wartete geduldig auf den {d}

[number]
{n} wohnte am Ende der Gasse im Haus mit der Nummer {u}.
Auf dem Schlüssel, den {n} gefunden hatte, stand die Nummer {u}.
> {n2} ging von Tür zu Tür und blieb stehen vor der Nummer {u}
> „Welches Haus ist es?“, fragte {n2}, und der Pförtner sagte: Nummer {u}

[pet]
Der Hund war alt und halb blind, und er hieß {pet}.
Den jungen Hund hatte {n} nach dem Helden eines Buches {pet} genannt.
> {w.W} stand {n} am Tor und rief ins Dunkel: {pet}
> Auf den kleinen Stein unter dem Baum schrieb {n2} nur ein Wort: {pet}

[material]
Die Dose, die {n} erbte, war nicht aus {mat2}, sondern aus {mat}.
„Ist das {mat2}?“, fragte {n}. Der alte Händler lachte. „Nein, das ist {mat}.“
> {n2} hielt das Ding ins Licht und sah: Es war wirklich {mat}
> Sonst besaß in diesem Haus niemand ein einziges Ding aus {mat}

[three suspects]
{n}, {n2} und {n3} waren {r.wo} gewesen, doch {n2} und {n3} gingen vor zehn.
Drei kannten das Geheimnis: {n}, {n2} und {n3}. Jetzt waren {n2} und {n3} weit fort.
> Also konnte nur eine Person {o.acc} genommen haben, nämlich {n}
> {o.Nom} war verschwunden, und alle sahen auf {n}

[gift]
Zum Geburtstag schenkte {n} der kleinen {f} {o.einen} in buntem Papier.
„Das ist für dich“, sagte {n} und legte {f} {o.einen} auf das Bett.
> Noch im Alter verwahrte {f}, in Seide gewickelt, {o.acc}
> {f} verkaufte das Haus und das Land, aber niemals {o.acc}

[elder sister]
Von den beiden Schwestern war {f} die ältere und {f2} die schönere.
{f} war drei Jahre älter als ihre Schwester {f2}.
> Im Testament stand, die ältere solle das Haus haben, und so bekam es {f}
> Der Schmuck war für die jüngere bestimmt, und so erhielt ihn {f2}

[tree]
Vor dem Haus stand {tree.ein}, gepflanzt vom Großvater der kleinen {f}.
Als Kinder hatten {n} und {n2} ihre Namen in {tree.acc} am Tor geschnitten.
> Nach dem Sturm war im Garten nichts mehr übrig {tree.vom}
> Im Sommer tranken alle ihren Kaffee im Schatten, unter {tree.dat}

[vehicle]
„Ich nehme nicht {v2.acc}“, sagte {n}, „ich komme mit {v.dat}.“
{n} sollte mit {v.dat} ankommen, und {n2} lief {n.ihm} entgegen.
> {n2} stand zwei Stunden in der Kälte und wartete auf {v.acc}
> Endlich hörte man in der Ferne ein Geräusch, und da kam {v.nom}

[drink]
{n} trank niemals {dr2}, aber ohne {dr} konnte {n.er} nicht leben.
„{dr} oder {dr2}?“, fragte {n2}. „{dr}, wie immer“, sagte {n}.
> Ohne weitere Frage ging {n2} in die Küche und holte {dr}
> So stand bald vor {n} auf dem Tisch ein großes Glas {dr}

[fear]
Als Kind hatte {n} nur vor einem Angst: vor {fear.dat}.
{n} fürchtete weder Menschen noch Geister, wohl aber {fear.acc}.
> {n2} nahm {n.ihn} an der Hand und sagte: Denk nicht mehr an {fear.acc}
> Und nun lag {n} mit offenen Augen im Bett und dachte immerzu an {fear.acc}

[longing]
Ein Leben lang träumte {n} {sight.vom} aus dem Bilderbuch der Großmutter.
„Wenn ich groß bin“, sagte {n} immer, „dann sehe ich {sight.acc}.“
> {w.W} öffnete {n2} den Vorhang, und vor ihnen lag {sight.nom}
> {n} starb in derselben kleinen Stadt und sah niemals {sight.acc}

[clothing]
{n} hatte auf der Bank am See {n.sein}{cl.e4} {cl} vergessen.
„Wo ist mein{cl.e1} {cl}?“, fragte {n} und sah unter alle Stühle.
> Zwei Tage später klopfte ein Junge an die Tür und brachte {cl.acc}
> {n2} wurde rot, denn unter dem Arm trug {n2.er} heimlich {cl.acc}

[work implied]
Tag für Tag dasselbe: {m} {y.s}.
Das ganze Dorf schlief noch, aber {m} {y.s}.
> Niemand nannte ihn beim Namen, er war für alle einfach der {y}
> „Das ist ein ehrlicher Mann“, sagte {f} und heiratete den {y}

[place implied]
{z.s}. {n} stand still und wartete.
{z.s}. Mitten darin stand {n}.
> Als es dunkel wurde, schlug {n} den Kragen hoch und verließ {z.acc}
> {n2} hatte sich verspätet und fragte auf der Straße nach {z.dat}

[animal implied]
{q.s}, und {n} konnte nicht schlafen.
{q.s}. „Hörst du das?“, flüsterte {n}.
> {n2} nahm die Laterne, sah nach und fand {q.einen}
> „Hab keine Angst“, sagte {n2}, „das ist doch nur {q.ein}

[wound]
{n} war von der Leiter gefallen und hatte sich {body.acc} verletzt.
Seit dem Krieg spürte {n} jeden Wetterwechsel, so sehr schmerzte {n.ihm} {body.nom}.
> Der Arzt kam, schüttelte den Kopf und betrachtete lange {body.acc}
> {n2} wärmte etwas Öl und rieb damit behutsam {body.acc}

[choice of two]
Auf dem Tisch lagen {o.ein} und {o2.ein}, und {n} durfte nur eins davon nehmen.
„{o.Nom} oder {o2.nom}?“, fragte {n2}. „Du musst wählen.“
> {n} ließ {o2.acc} liegen und nahm schnell {o.acc}
> {n} überlegte kurz, schob {o.acc} beiseite und griff sich {o2.acc}
""")

DATA = LanguageData(lexicon=_LEXICON, moods=_MOODS, devices=_DEVICES)

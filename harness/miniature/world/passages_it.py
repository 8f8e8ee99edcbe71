"""Italian scenes, words and moods for the passages."""

from __future__ import annotations

from .passages_lexicon import LanguageData, Word, gendered, hinted, lines, parse_devices, plain

_VOWELS = "aeiouàèéìòù"


def _article(w: str, gender: str) -> str:
    if w[0].lower() in _VOWELS:
        return "l'"
    if gender == "f":
        return "la "
    impure = w.startswith(("z", "gn", "ps", "x", "y")) or (w[0] == "s" and w[1] not in _VOWELS)
    return "lo " if impure else "il "


# How a preposition joins the article: stem + the article's own remainder.
_STEMS = {"del": "de", "al": "a", "nel": "ne", "sul": "su", "dal": "da"}
_JOINED = {"il ": "l ", "lo ": "llo ", "la ": "lla ", "l'": "ll'"}


def _noun(w: str, gender: str) -> Word:
    """``il``/``un``/``del``/``al``/``nel``/``sul``/``dal`` with articles, ``o`` the agreeing ending, ``lo`` the object
    pronoun, ``suo``/``mio`` possessives (without article), ``caro`` the adjective."""
    article = _article(w, gender)
    if gender == "m":
        un, o = ("uno " if article == "lo " else "un "), "o"
    else:
        un, o = ("un'" if article == "l'" else "una "), "a"
    joined = {name: f"{stem}{_JOINED[article]}{w}" for name, stem in _STEMS.items()}
    suo, mio = ("suo", "mio") if gender == "m" else ("sua", "mia")
    return Word(
        w,
        il=article + w,
        un=un + w,
        o=o,
        lo="lo" if gender == "m" else "la",
        suo=f"{suo} {w}",
        mio=f"{mio} {w}",
        caro=f"Car{o} {w}",
        **joined,
    )


def _place(w: str, key: str) -> Word:
    """``key`` is a preposition (``in`` joins the article) and a gender, e.g. ``sotto-m``; ``loc`` is the phrase."""
    preposition, _, gender = key.partition("-")
    forms = {name: form for name, form in _noun(w, gender)._forms.items() if name != "w"}
    return Word(w, loc=forms["nel"] if preposition == "in" else f"{preposition} {forms['il']}", **forms)


def _name(w: str, gender: str) -> Word:
    return Word(w, o="o", lo="lo", gli="gli") if gender == "m" else Word(w, o="a", lo="la", gli="le")


# All names begin with a consonant, so "e" and "a" need no "ed" and "ad" before them.
_MEN = "m: Pietro Giovanni Marco Paolo Luca Matteo Carlo Tommaso Lorenzo Francesco Giacomo Roberto Stefano Davide"
_WOMEN = "f: Maria Lucia Giulia Chiara Teresa Rosa Francesca Caterina Silvia Beatrice Marta Laura Giovanna Sofia"

_LEXICON = {
    "m": gendered(_MEN, _name),
    "f": gendered(_WOMEN, _name),
    "n": gendered(f"{_MEN} | {_WOMEN}", _name),
    "w": plain(
        lines("""
        una sera
        quella sera
        una mattina d'inverno
        dopo cena
        a notte fonda
        in un pomeriggio di pioggia
        prima che arrivassero gli ospiti
        alla fine dell'estate
        poco prima di mezzanotte
        il primo giorno di vacanza
        poco dopo l'alba
        una domenica molto fredda
    """)
    ),
    "o": gendered(
        "m: libro coltello specchio pettine diario fazzoletto ventaglio cucchiaio ritratto bracciale anello | f: "
        "chiave lettera lampada fotografia moneta mappa candela collana pipa busta bussola bottiglia scatola penna "
        "medaglia",
        _noun,
    ),
    "c": gendered(
        "in-m: cassetto baule cesto barile armadio | in-f: cassa valigia stufa credenza botte | sotto-m: letto tappeto "
        "cuscino materasso | sotto-f: panca scala pietra | dietro-f: tenda fontana siepe | dietro-m: pianoforte pozzo "
        "fienile",
        _place,
    ),
    "r": gendered(
        "in-f: cucina biblioteca cantina soffitta cappella torre sala camera serra bottega | in-m: giardino salotto "
        "cortile studio granaio",
        _place,
    ),
    "a": gendered(
        "m: gatto cane cavallo riccio coniglio corvo cigno asino pappagallo scoiattolo | f: volpe civetta capra oca "
        "colomba tartaruga",
        _noun,
    ),
    "i": gendered(
        "m: pianoforte violino violoncello clarinetto tamburo organo flauto | f: chitarra tromba arpa fisarmonica",
        _noun,
    ),
    "j": plain(
        "panettiere medico marinaio maestro pittore sarto giardiniere mugnaio avvocato pescatore falegname fabbro "
        "pastore orologiaio notaio".split()
    ),
    "k": plain("rosso blu verde giallo bianco nero grigio marrone viola".split()),
    "e": plain("pane formaggio mele pere miele uova burro ciliegie prosciutto pesce cipolle uva".split()),
    "b": plain("rose tulipani gigli viole margherite papaveri girasoli garofani gelsomini".split()),
    "t": plain("Roma Venezia Firenze Napoli Torino Milano Verona Genova Siena Bologna Pisa Palermo".split()),
    "s": plain("gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre".split()),
    "d": gendered("m: lunedì martedì mercoledì giovedì venerdì sabato | f: domenica", _noun),
    "u": plain("tre quattro cinque sei sette otto nove dieci undici dodici tredici quindici venti".split()),
    "pet": plain("Argo Bruno Lampo Ombra Principe Fulmine Capitano Nocciola Moro".split()),
    "mat": plain("rame ferro vetro marmo cuoio bronzo legno cristallo porcellana stagno giada".split()),
    "kin": gendered("f: sorella zia nonna cugina madre madrina | m: fratello zio nonno cugino padre padrino", _noun),
    "tree": gendered(
        "m: tiglio faggio castagno noce salice cipresso pino ciliegio melo pero | f: quercia betulla", _noun
    ),
    "v": gendered(
        "m: treno carro tram traghetto calesse battello | f: barca slitta carrozza bicicletta corriera nave", _noun
    ),
    "dr": plain("tè caffè vino latte sidro cioccolata limonata birra acqua".split()),
    "fear": gendered("m: buio tuono mare fuoco bosco vento fulmine | f: tempesta nebbia neve notte", _noun),
    "sight": gendered(
        "m: mare deserto palazzo faro vulcano castello ghiacciaio | f: giungla cattedrale montagna", _noun
    ),
    "cl": gendered(
        "m: cappello cappotto guanto scialle grembiule stivale berretto | f: sciarpa giacca cintura scarpa", _noun
    ),
    "body": gendered("f: mano spalla gamba caviglia schiena | m: ginocchio piede braccio dito gomito polso", _noun),
    "x": hinted(
        """
        m | ombrello | pioveva | Da mezzogiorno pioveva senza sosta
        f | candela | buio | Il corridoio era completamente buio
        f | chiave | chiusa | La pesante porta era chiusa
        f | penna | scrivere | Prima dell'alba bisognava scrivere una lunga lettera
        f | sega | legna | Non c'era più legna tagliata per la stufa
        m | secchio | pozzo | Bisognava prendere l'acqua dal pozzo
        m | ago | cucire | Bisognava cucire la manica prima del ballo
        f | scala | tetto | Qualcuno doveva salire sul tetto
        f | pala | buca | Bisognava scavare una buca profonda in giardino
        f | scopa | polvere | C'era polvere sul pavimento di tutte le stanze
        m | orologio | ora | Nessuno sapeva che ora fosse
        f | mappa | strada | Nessuno conosceva la strada delle colline
    """,
        _noun,
    ),
    "y": hinted(
        """
        m | panettiere | impasto | si alzava alle tre e lavorava l'impasto
        m | pescatore | reti | rammendava le reti e remava sul lago
        m | maestro | lavagna | scriveva le somme alla lavagna
        m | medico | malati | ascoltava il cuore dei malati
        m | sarto | stoffa | misurava la stoffa e tagliava i pantaloni
        m | giardiniere | siepi | annaffiava i fiori e potava le siepi
        m | fabbro | incudine | batteva il ferro rovente sull'incudine
        m | pastore | gregge | portava il gregge dall'altra parte della collina
        m | pittore | pennelli | lavava i pennelli e copriva la tela
        m | barbiere | rasoio | affilava il rasoio e pettinava i clienti
        m | mugnaio | farina | riempiva i sacchi di farina e ascoltava la ruota
        m | giudice | sentenza | indossava la toga e leggeva la sentenza
    """,
        _noun,
    ),
    "z": hinted(
        """
        f | stazione | treni | I treni fischiavano e i viaggiatori trascinavano le valigie
        m | porto | navi | Le navi dondolavano e i marinai lanciavano le corde
        f | chiesa | prete | Il prete accendeva le candele e il coro cantava piano
        f | scuola | scolari | Gli scolari chiudevano i quaderni e suonava la campana
        m | teatro | attori | Gli attori si inchinavano e il sipario calava
        f | clinica | infermiere | Le infermiere correvano da un letto all'altro
        m | mercato | bancarelle | Le donne gridavano i prezzi dalle bancarelle
        m | mulino | farina | Tutto era bianco di farina e la grande ruota girava
        f | prigione | sbarre | Le guardie battevano sulle sbarre di ferro
        f | panetteria | pani | Nella vetrina c'erano pani ancora caldi
        f | banca | denaro | Gli impiegati contavano il denaro dietro un vetro
        m | museo | statue | I visitatori camminavano lentamente tra le statue e i quadri
    """,
        _noun,
    ),
    "q": hinted(
        """
        m | cane | abbaiava | Qualcosa abbaiava dietro il cancello
        m | gatto | fusa | Qualcosa faceva le fusa vicino alla finestra
        m | cavallo | nitriva | Qualcosa nitriva nel cortile
        f | pecora | belava | Qualcosa belava dietro la siepe
        m | gufo | bubolava | Qualcosa bubolava nella vecchia torre
        f | mucca | muggiva | Qualcosa muggiva nella nebbia
        m | maiale | grugniva | Qualcosa grugniva sotto la panca
        m | lupo | ululava | Qualcosa ululava al limite del bosco
        m | gallo | cantava | Qualcosa cantava nel pollaio prima dell'alba
        f | vespa | ronzava | Qualcosa ronzava contro il vetro
        m | topo | squittiva | Qualcosa squittiva sotto il pavimento
        f | rana | gracidava | Qualcosa gracidava nell'erba bagnata
    """,
        _noun,
    ),
}

_MOODS = lines("""
    Fuori il vento scuoteva le persiane.
    Il fuoco era quasi spento.
    C'era tanto silenzio che si sentiva la pendola.
    La neve cadeva sulla strada deserta.
    La luna splendeva sopra i tetti.
    Dalla finestra entrava un odore di terra bagnata.
    Per un lungo momento nessuno parlò.
    In lontananza suonava una campana.
    L'ultima luce si posava sul pavimento.
    La scala scricchiolava come sempre.
    Nella stanza accanto qualcuno rideva.
    Quell'anno il fiume era molto alto.
    I giorni passavano lentamente.
    La lampada gettava lunghe ombre sul muro.
    Le foglie secche volavano sul sentiero.
    Finalmente aveva smesso di piovere.
    I bambini dormivano già.
    Tutto il paese ne parlava.
    La minestra si raffreddava.
    Una carrozza passò davanti alla casa.
    Le rondini erano tornate presto.
    Era stata una giornata lunga e polverosa.
    La vecchia domestica scosse la testa.
    Le settimane diventarono mesi.
    Oltre il muro litigavano i vicini.
    Tutto sapeva di fumo e di sapone.
""")

_DEVICES = parse_devices("""
[letter returned]
{w.W} {n} lesse ad alta voce la lettera che {n2} aveva portato dalla città.
{w.W} {n2} salì le scale con una lettera e pregò {n} di leggerla.
> Finita l'ultima pagina, {n} piegò il foglio e lo restituì a {n2}
> {n} pianse un poco, poi ringraziò con voce ferma {n2}

[hidden object]
{w.W} {n} nascose {o.il} {c.loc} e non lo disse a nessuno.
{n} avvolse {o.il} in uno straccio e nascose tutto {c.loc}.
> Anni dopo un bambino infilò la mano in quel posto e tirò fuori {o.il}
> Pulendo la casa in primavera, {n2} ritrovò all'improvviso {o.il}

[hiding place]
{w.W} {n} mise {o.il} {c.loc}, dove nessun ladro avrebbe guardato.
«Nascondil{o.o} {c.loc}», sussurrò {n}, e {n2} prese {o.il} e ubbidì.
> La polizia cercò dappertutto, ma nessuno guardò {c.loc}
> Passato il pericolo, {n} indicò con un sorriso {c.il}

[pair of rooms]
{n} aspettava {r.nel} e {n2} {r2.nel}.
{w.W} {n} lavorava {r.nel} mentre {n2} dormiva {r2.nel}.
> Al primo grido {n2} uscì di corsa {r2.dal}
> Quando qualcuno chiamò {n}, la risposta arrivò {r.dal}

[colour]
Il cappotto di {n} era {k} e quello di {n2} era {k2}.
Per la festa {n} comprò un cappotto {k}, e {n2} ne scelse uno {k2}.
> Tra la folla riconoscemmo subito {n}, perché il cappotto era {k}
> Qualcuno ci salutò nella nebbia: era {n2}, perché il cappotto era {k2}

[instrument]
Tutte le sere {n} suonava {i.il} mentre {n2} suonava {i2.il}.
{n} aveva imparato a suonare {i.il} da una vecchia zia, ma {n2} preferiva {i2.il}.
> Dopo la morte di {n}, nessuno in quella casa osò più toccare {i.il}
> Per i vent'anni di {n2} la famiglia comprò {i2.un}

[animal found]
{w.W} {n} trovò in giardino {a.un} che tremava per la fame.
Dietro la rimessa {n} scoprì {a.un} con una zampa ferita.
> Per tutta la notte {n} rimase a occhi aperti e pensò {a.al}
> Al mattino {n2} portò una ciotola d'acqua e si inginocchiò accanto {a.al}

[profession]
Il padre di {m} era {j}, e lo era stato anche il nonno.
In quella famiglia il figlio maggiore diventava sempre {j}, e {m} era il maggiore.
> Quando la maestra gli chiese del futuro, {m} rispose subito: {j}
> A vent'anni {m} lasciò il paese e diventò, naturalmente, {j}

[town]
{n} era cresciut{n.o} a {t}, ma aveva dovuto andarsene molto presto.
Alla parete era appesa una vecchia veduta di {t}, dove {n} era stat{n.o} felice.
> Da vecchi{n.o} {n} aveva un solo desiderio, rivedere i tetti di {t}
> «Un giorno», diceva {n} ai nipoti, «andremo tutti insieme a {t}

[market]
Al mattino {n} andò al mercato a comprare {e}, e {n2} a comprare {e2}.
«Voglio {e}», disse la cuoca a {n}, e mandò {n2} a cercare {e2}.
> Un'ora dopo {n} tornò con un cesto pieno di {e}
> Ma {n2} spese tutti i soldi per comprare altro, e non {e2}

[flowers]
Sotto la finestra {n} aveva piantato {b}, perché piacevano a {n2}.
«Quando tornerò a casa», aveva scritto {n2}, «voglio vedere {b} dappertutto».
> Il giorno del ritorno {n} scese in giardino e fece grandi mazzi di {b}
> E così {n} riempì tutta la casa, dalla cantina alla soffitta, di {b}

[person addressed]
«Entra, {n}», disse la vecchia, «e chiudi la porta».
«Sei in ritardo, {n}», disse {n2} senza alzare gli occhi dal libro.
> Vicino al fuoco c'era una sedia, e lì si mise in silenzio {n}
> Sul tavolo c'era un'altra tazza, ed era pronta per {n}

[letter from]
La busta non aveva francobollo, ma la scrittura era senza dubbio quella di {n}.
Per undici anni nessuno aveva saputo nulla di {n}, poi arrivò un pacco.
> {n2} si fermò sulle scale e sussurrò più volte il nome di {n}
> {n2} baciò la carta e capì che c'era ancora speranza per {n}

[needed thing]
{x.s}. {n} si alzò con un sospiro.
{x.s}. «Ci penso io», disse {n}.
> {n} cercò in tutta la casa {x.un}
> Dalla rimessa uscì {n2} con {x.un}

[relative]
Una sola persona aveva capito {n}: {kin.suo}, che viveva vicino al mare.
Dopo la guerra {n} viveva con {kin.suo} in due piccole stanze.
> Il medico chiese chi bisognava chiamare, e {n} nominò {kin.suo}
> La sera {n} scriveva lunghe lettere che cominciavano così: {kin.caro}

[month]
Si erano conosciuti in {s}, sulla scala di un vecchio teatro.
«Tornerò in {s}», disse {n}, e la carrozza partì.
> L'anno girò lentamente, e finalmente fu di nuovo {s}
> Ogni mattina {n2} guardava il calendario e aspettava il mese di {s}

[weekday]
Il battello dell'isola partiva una sola volta alla settimana, {d.il}.
{n} aveva promesso di venire a cena {d.il} seguente.
> {n2} contò le ore che mancavano {d.al}
> Così {n2} fece la valigia e aspettò con pazienza {d.il}

[number]
{n} abitava in fondo alla via, nella casa numero {u}.
La chiave che {n} aveva trovato portava il numero {u}.
> {n2} andò di porta in porta e si fermò davanti al numero {u}
> «Qual è?» chiese {n2}, e il portiere rispose: il numero {u}

[pet]
Il cane era vecchio e quasi cieco, e si chiamava {pet}.
{n} aveva dato al cucciolo il nome di {pet}, come l'eroe di un libro.
> {w.W} {n} uscì sulla porta e gridò nel buio: {pet}
> Sulla piccola pietra, sotto l'albero, {n2} scrisse una sola parola: {pet}

[material]
La scatola che {n} ereditò non era di {mat2}, ma di {mat}.
«È {mat2}?» chiese {n}. Il vecchio mercante rise. «No, è {mat}».
> {n2} avvicinò quella cosa alla luce e vide che era davvero {mat}
> Nessuno in quella casa aveva mai posseduto qualcosa di {mat}

[three suspects]
{n}, {n2} e {n3} erano {r.nel}, ma {n2} e {n3} uscirono prima delle dieci.
Tre conoscevano il segreto: {n}, {n2} e {n3}. Ma {n2} e {n3} erano in viaggio.
> Dunque una sola persona poteva aver preso {o.il}, ed era {n}
> {o.Il} non c'era più, e tutti guardarono {n}

[gift]
Per il compleanno {n} regalò a {n2} {o.un} in un sacchetto di carta.
«Questo è per te», disse {n}, e posò {o.un} sul letto di {n2}.
> Molti anni dopo {n2} conservava ancora, avvolt{o.o} nella seta, {o.il}
> {n2} vendette la casa e le terre, ma mai {o.il}

[elder sister]
Delle due sorelle, {f} era la maggiore e {f2} la più bella.
{f} aveva tre anni più di sua sorella {f2}.
> Secondo il testamento la casa era per la maggiore, e così andò a {f}
> I gioielli erano per la minore, e così li ricevette {f2}

[tree]
Davanti alla casa c'era {tree.un} che aveva piantato il nonno di {n}.
Da piccoli {n} e {m} avevano inciso i loro nomi sul tronco {tree.del}.
> Dopo la tempesta non restava più nulla {tree.del}
> D'estate tutti prendevano il caffè all'ombra {tree.del}

[vehicle]
«Non prenderò {v2.il}», disse {n}, «prenderò {v.il}».
{n} doveva arrivare con {v.il}, e {n2} {n.gli} corse incontro.
> {n2} rimase due ore in piedi, al freddo, ad aspettare {v.il}
> Finalmente si sentì un rumore in lontananza, e apparve {v.il}

[drink]
{n} non beveva mai {dr2}, ma non poteva vivere senza {dr}.
«{dr.W} o {dr2}?» chiese {n2}. «{dr.W}, come sempre», disse {n}.
> Senza chiedere altro, {n2} andò in cucina e portò {dr}
> Così sulla tavola, davanti a {n}, ci fu presto un grande bicchiere di {dr}

[fear]
Da piccol{n.o} {n} aveva paura di una sola cosa: {fear.il}.
{n} non temeva né gli uomini né i fantasmi, ma aveva paura {fear.del}.
> {n2} {n.lo} prese per mano perché non pensasse {fear.al}
> E adesso {n} stava a letto, con gli occhi aperti, e pensava {fear.al}

[longing]
Per tutta la vita {n} sognò {sight.il} che aveva visto in un libro della nonna.
«Quando sarò grande», diceva sempre {n}, «vedrò {sight.il}».
> {w.W} {n2} aprì la tenda, e davanti a loro apparve {sight.il}
> {n} morì nello stesso paese senza aver mai visto {sight.il}

[clothing]
{n} aveva dimenticato {cl.un} sulla panchina, vicino al lago.
«Chi ha visto {cl.il}?» chiese {n}, guardando sotto tutte le sedie.
> Due giorni dopo un ragazzo bussò alla porta e restituì {cl.il}
> {n2} diventò ross{n2.o}, perché sotto il braccio teneva {cl.il}

[work implied]
Tutti i giorni, senza eccezione, {m} {y.s}.
Da più di trent'anni {m} {y.s}.
> Nessuno lo chiamava per nome, per tutto il paese era il {y}
> «È un uomo onesto», disse {f}, e sposò il {y}

[place implied]
{z.s}. {n} aspettava senza muoversi.
{z.s}. In mezzo a tutto questo c'era {n}.
> Quando si fece buio, {n} si alzò il bavero e uscì {z.dal}
> {n2} era in ritardo e attraversò la piazza, correndo verso {z.il}

[animal implied]
{q.s}, e {n} non riusciva a dormire.
{q.s}. «Senti anche tu?» sussurrò {n}.
> {n2} prese la lanterna, andò a vedere e trovò {q.un}
> «Non avere paura», disse {n2}, «è soltanto {q.un}

[wound]
{n} era cadut{n.o} dalla scala e si era ferit{n.o} {body.al}.
Dalla guerra, a ogni cambiamento di tempo, {n} sentiva un dolore {body.al}.
> Venne il medico, scosse la testa e guardò a lungo {body.il}
> {n2} scaldò un po' d'olio e {n.gli} massaggiò piano {body.il}

[choice of two]
Sul tavolo c'erano {o.un} e {o2.un}, e {n} poteva prendere una cosa sola.
«{o.Il} o {o2.il}?» chiese {n2}. «Devi scegliere».
> {n} lasciò {o2.il} al suo posto e prese in fretta {o.il}
> {n} pensò un momento, mise da parte {o.il} e prese con cura {o2.il}
""")

DATA = LanguageData(lexicon=_LEXICON, moods=_MOODS, devices=_DEVICES)

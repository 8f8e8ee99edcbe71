"""Spanish scenes, words and moods for the passages."""

from __future__ import annotations

from .passages_lexicon import LanguageData, Word, gendered, hinted, lines, parse_devices, plain


def _noun(w: str, gender: str) -> Word:
    """``el``/``un``/``del``/``al``/``ningun`` with articles, ``lo`` the object pronoun, ``o`` the agreeing ending."""
    if gender == "m":
        return Word(
            w,
            ningun=f"ningún {w}",
            lo="lo",
            o="o",
            un=f"un {w}",
            **{"el": f"el {w}", "del": f"del {w}", "al": f"al {w}"},
        )
    return Word(
        w,
        ningun=f"ninguna {w}",
        lo="la",
        o="a",
        un=f"una {w}",
        **{"el": f"la {w}", "del": f"de la {w}", "al": f"a la {w}"},
    )


def _place(w: str, key: str) -> Word:
    """``key`` is a preposition and a gender, e.g. ``debajo de-f``; ``loc`` is the phrase with its contraction."""
    preposition, _, gender = key.partition("-")
    forms = {name: form for name, form in _noun(w, gender)._forms.items() if name != "w"}
    loc = f"{preposition} {forms['el']}".replace(" de el ", " del ")
    return Word(w, loc=loc, **forms)


def _name(w: str, gender: str) -> Word:
    return Word(w, o="o", lo="lo") if gender == "m" else Word(w, o="a", lo="la")


_MEN = "m: Pedro Juan Manuel Tomás Diego Rafael Andrés Fernando Pablo Luis Miguel Javier Ramón Gonzalo"
_WOMEN = "f: Carmen Lucía Elena Rosa Teresa Marta Pilar Clara Beatriz Juana Mercedes Ana Sofía Dolores"

_LEXICON = {
    "m": gendered(_MEN, _name),
    "f": gendered(_WOMEN, _name),
    "n": gendered(f"{_MEN} | {_WOMEN}", _name),
    "w": plain(
        lines("""
        una noche
        aquella tarde
        una mañana de invierno
        después de la cena
        muy entrada la noche
        una tarde de lluvia
        antes de que llegaran los invitados
        al final del verano
        poco antes de medianoche
        el primer día de vacaciones
        poco después del amanecer
        un domingo muy frío
    """)
    ),
    "o": gendered(
        "m: anillo libro reloj cuchillo mapa espejo peine diario collar pañuelo sobre abanico retrato broche | f: "
        "llave carta lámpara fotografía moneda vela pipa brújula botella caja medalla cuchara pluma",
        _noun,
    ),
    "c": gendered(
        "en-m: cajón baúl armario cesto barril escritorio | en-f: maleta estufa chimenea despensa | debajo de-f: cama "
        "alfombra almohada escalera | debajo de-m: banco colchón | detrás de-f: cortina fuente | detrás de-m: piano "
        "granero biombo",
        _place,
    ),
    "r": gendered(
        "en-f: cocina biblioteca bodega capilla torre sala alcoba | en-m: desván jardín establo salón taller patio "
        "despacho vestíbulo invernadero corral",
        _place,
    ),
    "a": gendered(
        "m: gato perro zorro caballo erizo conejo cuervo cisne burro cordero loro | f: lechuza cabra ardilla oca "
        "paloma",
        _noun,
    ),
    "i": gendered(
        "m: piano violín acordeón órgano clarinete tambor violonchelo | f: flauta guitarra trompeta pandereta", _noun
    ),
    "j": plain(
        "panadero médico marinero maestro pintor sastre jardinero molinero abogado pescador carpintero herrero pastor "
        "relojero notario".split()
    ),
    "k": plain("rojo azul verde amarillo blanco negro gris pardo violeta".split()),
    "e": plain("pan queso manzanas peras miel huevos mantequilla cerezas jamón pescado cebollas uvas".split()),
    "b": plain("rosas tulipanes lirios violetas margaritas amapolas girasoles claveles jazmines".split()),
    "t": plain("Sevilla Toledo Granada Madrid Burgos Salamanca Valencia Lisboa Córdoba Cádiz Segovia Venecia".split()),
    "s": plain("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split()),
    "d": plain("lunes martes miércoles jueves viernes sábado domingo".split()),
    "u": plain("tres cuatro cinco seis siete ocho nueve diez once doce trece quince veinte".split()),
    "pet": plain("León Bruno Canela Trueno Sombra Lucero Capitán Pimienta Moro".split()),
    "mat": plain("oro plata cobre hierro cristal marfil mármol cuero ámbar bronce".split()),
    "kin": gendered("f: hermana tía abuela prima madre madrina | m: hermano tío abuelo primo padre padrino", _noun),
    "tree": gendered("m: roble tilo abedul castaño nogal sauce ciprés olmo pino manzano | f: encina higuera", _noun),
    "v": gendered("m: tren barco trineo autobús carro tranvía coche | f: bicicleta barca carreta", _noun),
    "dr": plain("té café vino leche sidra agua chocolate limonada cerveza".split()),
    "fear": gendered("f: oscuridad tormenta niebla nieve | m: trueno mar fuego bosque viento relámpago", _noun),
    "sight": gendered("m: mar desierto palacio faro volcán océano castillo | f: selva catedral isla montaña", _noun),
    "cl": gendered("m: sombrero abrigo guante chal cinturón delantal zapato | f: bufanda chaqueta gorra bota", _noun),
    "body": gendered("f: mano rodilla pierna muñeca cadera espalda | m: pie hombro brazo dedo codo tobillo", _noun),
    "x": hinted(
        """
        m | paraguas | llovía | Desde el mediodía llovía sin descanso
        f | vela | oscuras | El pasillo estaba completamente a oscuras
        f | llave | cerrada | La pesada puerta estaba cerrada
        f | pluma | escribir | Antes del alba había que escribir una larga carta
        f | sierra | leña | Ya no quedaba leña cortada para la estufa
        m | cubo | pozo | Había que sacar agua del pozo
        f | aguja | coser | Antes del baile había que coser la manga rota
        f | escalera | tejado | Alguien tenía que subir al tejado
        f | pala | hoyo | Había que cavar un hoyo profundo en el jardín
        f | escoba | polvo | Había polvo en el suelo de todas las habitaciones
        m | reloj | hora | Nadie sabía qué hora era
        m | mapa | camino | Nadie conocía el camino de las montañas
    """,
        _noun,
    ),
    "y": hinted(
        """
        m | panadero | masa | se levantaba a las tres y preparaba la masa
        m | pescador | redes | remendaba las redes y salía a remar al lago
        m | maestro | pizarra | escribía las sumas en la pizarra
        m | médico | enfermos | escuchaba el corazón de los enfermos
        m | sastre | tela | medía la tela y cortaba los pantalones
        m | jardinero | setos | regaba las flores y podaba los setos
        m | herrero | yunque | golpeaba el hierro caliente sobre el yunque
        m | pastor | rebaño | llevaba el rebaño al otro lado de la colina
        m | pintor | pinceles | lavaba los pinceles y tapaba el lienzo
        m | barbero | navaja | afilaba la navaja y peinaba a los clientes
        m | molinero | harina | llenaba los sacos de harina y escuchaba la rueda
        m | juez | sentencia | se ponía la toga y leía la sentencia
    """,
        _noun,
    ),
    "z": hinted(
        """
        f | estación | trenes | Silbaban los trenes y los viajeros arrastraban sus maletas
        m | puerto | barcos | Se mecían los barcos y los marineros lanzaban cuerdas
        f | iglesia | cura | El cura encendía las velas y el coro cantaba en voz baja
        f | escuela | alumnos | Los alumnos cerraban los cuadernos y sonaba la campana
        m | teatro | actores | Los actores saludaban y caía el telón
        m | hospital | enfermeras | Las enfermeras corrían de cama en cama
        m | mercado | puestos | Las mujeres gritaban los precios desde los puestos
        m | molino | harina | Todo estaba blanco de harina y la gran rueda giraba
        f | cárcel | rejas | Los guardias golpeaban las rejas de hierro
        f | panadería | panes | Había panes calientes en el escaparate
        m | banco | dinero | Los empleados contaban el dinero detrás de un cristal
        m | museo | estatuas | Los visitantes paseaban despacio entre las estatuas y los cuadros
    """,
        _noun,
    ),
    "q": hinted(
        """
        m | perro | ladraba | Algo ladraba detrás de la verja
        m | gato | ronroneaba | Algo ronroneaba junto a la ventana
        m | caballo | relinchaba | Algo relinchaba en el patio
        f | oveja | balaba | Algo balaba detrás del seto
        f | lechuza | ululaba | Algo ululaba en la vieja torre
        f | vaca | mugía | Algo mugía entre la niebla
        m | cerdo | gruñía | Algo gruñía debajo del banco
        m | pato | graznaba | Algo graznaba en el estanque
        m | gallo | cantaba | Algo cantaba en el corral antes del alba
        f | abeja | zumbaba | Algo zumbaba contra el cristal
        m | ratón | chillaba | Algo chillaba debajo del suelo
        f | rana | croaba | Algo croaba en la hierba mojada
    """,
        _noun,
    ),
}

_MOODS = lines("""
    Afuera el viento sacudía las persianas.
    El fuego estaba casi apagado.
    Había tanto silencio que se oía el reloj.
    La nieve caía sobre la calle vacía.
    La luna brillaba encima de los tejados.
    Por la ventana entraba un olor a tierra mojada.
    Durante un buen rato nadie dijo nada.
    A lo lejos sonaba una campana.
    La última luz se posaba en el suelo.
    La escalera crujía como siempre.
    En la habitación de al lado alguien se rio.
    Aquel año el río bajaba muy crecido.
    Los días pasaban despacio.
    La lámpara dibujaba largas sombras en la pared.
    Las hojas secas volaban por el camino.
    Por fin había dejado de llover.
    Los niños ya dormían.
    Todo el pueblo hablaba de ello.
    La sopa se estaba enfriando.
    Un coche pasó por delante de la casa.
    Las golondrinas habían vuelto temprano.
    Había sido un día largo y polvoriento.
    La vieja criada movió la cabeza.
    Las semanas se convirtieron en meses.
    Al otro lado del muro discutían los vecinos.
    Todo olía a humo y a jabón.
""")

_DEVICES = parse_devices("""
[letter returned]
{w.W} {n} leyó en voz alta la carta que {n2} había traído de la ciudad.
{w.W} {n2} subió la escalera con una carta y pidió a {n} que la leyera.
> Terminada la última página, {n} dobló el papel y se lo devolvió a {n2}
> {n} lloró un poco y después dio las gracias, con voz firme, a {n2}

[hidden object]
{w.W} {n} escondió {o.el} {c.loc} y no se lo dijo a nadie.
{n} envolvió {o.el} en un trapo y lo ocultó todo {c.loc}.
> Años más tarde un niño metió la mano en aquel lugar y sacó {o.el}
> Al limpiar la casa en primavera, {n2} encontró de pronto {o.el}

[hiding place]
{w.W} {n} puso {o.el} {c.loc}, donde ningún ladrón miraría.
«Guárdal{o.o} {c.loc}», susurró {n}, y {n2} escondió allí {o.el}.
> La policía buscó por todas partes, pero nadie miró {c.loc}
> Cuando pasó el peligro, {n} se acercó sonriendo {c.al}

[pair of rooms]
{n} esperaba {r.loc} y {n2} {r2.loc}.
{w.W} {n} trabajaba {r.loc} mientras {n2} dormía {r2.loc}.
> Al oír el primer grito, {n2} salió corriendo {r2.del}
> Cuando alguien llamó a {n}, la respuesta llegó {r.del}

[colour]
El abrigo de {n} era {k} y el de {n2} era {k2}.
Para la fiesta {n} se compró un abrigo {k}, y {n2} prefirió uno {k2}.
> Entre la gente reconocimos enseguida a {n}, porque el abrigo era {k}
> Alguien nos saludó en la niebla, y era {n2}, porque el abrigo era {k2}

[instrument]
Todas las tardes {n} tocaba {i.el} mientras {n2} practicaba con {i2.el}.
{n} había aprendido a tocar {i.el} con una vieja tía, pero {n2} prefería {i2.el}.
> Cuando murió {n}, nadie en la casa se atrevió a tocar {i.el}
> Al cumplir {n2} los veinte años, la familia le regaló {i2.un}

[animal found]
{w.W} {n} encontró en el jardín {a.un} que temblaba de hambre.
Detrás del cobertizo {n} descubrió {a.un} con una pata herida.
> {n} pasó toda la noche en vela, pensando en {a.el}
> Por la mañana {n2} trajo un cuenco de agua y se arrodilló junto {a.al}

[profession]
El padre de {m} era {j}, y también lo había sido el abuelo.
En aquella familia el hijo mayor siempre se hacía {j}, y {m} era el mayor.
> Cuando la maestra preguntó por el futuro, {m} contestó enseguida: {j}
> A los veinte años {m} dejó el pueblo y se hizo, naturalmente, {j}

[town]
{n} había nacido en {t}, pero tuvo que marcharse siendo muy joven.
De la pared colgaba una vieja vista de {t}, donde {n} había sido feliz.
> En la vejez {n} tenía un solo deseo, ver otra vez los tejados de {t}
> «Un día», decía {n} a los nietos, «iremos todos juntos a {t}

[market]
Por la mañana {n} fue al mercado a comprar {e}, y {n2} a comprar {e2}.
«Necesito {e}», dijo la cocinera a {n}, y mandó a {n2} a buscar {e2}.
> Una hora después {n} volvió con un cesto lleno de {e}
> Pero {n2} se gastó todo el dinero en algo que no era {e2}

[flowers]
Debajo de la ventana {n} había plantado {b}, porque le gustaban a {n2}.
«Cuando vuelva a casa», había escrito {n2}, «quiero ver {b} en todas partes».
> El día del regreso {n} salió al jardín y cortó todos los ramos de {b}
> Y así {n} llenó toda la casa, de la bodega al desván, de {b}

[person addressed]
«Entra, {n}», dijo la anciana, «y cierra la puerta».
«Llegas tarde, {n}», dijo {n2} sin levantar la vista del libro.
> Junto al fuego había una silla, y en ella se sentó sin decir palabra {n}
> En la mesa había otra taza, y estaba preparada para {n}

[letter from]
El sobre no llevaba sello, pero la letra era sin duda la de {n}.
Durante once años nadie supo nada de {n}, y entonces llegó un paquete.
> {n2} se sentó en la escalera y susurró una y otra vez el nombre de {n}
> {n2} besó el papel y supo que aún había esperanza para {n}

[needed thing]
{x.s}. {n} se levantó con un suspiro.
{x.s}. «Yo me encargo», dijo {n}.
> {n} buscó por toda la casa, pero no encontró {x.ningun}
> Del cobertizo salió {n2} con {x.un}

[relative]
Una sola persona había comprendido a {n}: su {kin}, que vivía junto al mar.
Después de la guerra {n} vivía con su {kin} en dos cuartos pequeños.
> El médico preguntó a quién debían avisar, y {n} nombró a su {kin}
> Por las noches {n} escribía largas cartas que empezaban: Querid{kin.o} {kin}

[month]
Se habían conocido en {s}, en la escalera de un viejo teatro.
«Volveré en {s}», dijo {n}, y el coche se puso en marcha.
> El año dio la vuelta muy despacio, y por fin llegó de nuevo {s}
> {n2} miraba el calendario todas las mañanas y esperaba el mes de {s}

[weekday]
El barco de la isla salía una sola vez por semana, el {d}.
{n} había prometido venir a cenar el {d}.
> {n2} contó las horas que faltaban hasta el {d}
> Así que {n2} hizo la maleta y esperó con paciencia al {d}

[number]
{n} vivía al final de la calle, en la casa número {u}.
La llave que había encontrado {n} llevaba el número {u}.
> {n2} fue de puerta en puerta y se detuvo delante del número {u}
> «¿Cuál es?», preguntó {n2}, y el portero contestó: el número {u}

[pet]
El perro era viejo y casi ciego, y se llamaba {pet}.
{n} le había puesto al cachorro el nombre de {pet}, como el héroe de un libro.
> {w.W} {n} salió a la puerta y gritó en la oscuridad: {pet}
> En la pequeña piedra, bajo el árbol, {n2} escribió una sola palabra: {pet}

[material]
La caja que heredó {n} no era de {mat2}, sino de {mat}.
«¿Es de {mat2}?», preguntó {n}. El viejo comerciante se rio. «No, es de {mat}».
> {n2} acercó aquello a la luz y vio que de verdad era de {mat}
> Nadie en la casa había tenido nunca nada de {mat}

[three suspects]
{n}, {n2} y {n3} habían estado {r.loc}, pero {n2} y {n3} se fueron antes de las diez.
Tres conocían el secreto: {n}, {n2} y {n3}. Ahora {n2} y {n3} estaban lejos.
> Así que {o.el} solo podía tenerl{o.o} una persona: {n}
> {o.El} había desaparecido, y todos miraron a {n}

[gift]
Por su cumpleaños {n} le regaló a {n2} {o.un} en una bolsa de papel.
«Esto es para ti», dijo {n}, y dejó {o.un} sobre la cama de {n2}.
> Muchos años después {n2} guardaba todavía, envuelt{o.o} en seda, {o.el}
> {n2} vendió la casa y las tierras, pero nunca {o.el}

[elder sister]
De las dos hermanas, {f} era la mayor y {f2} la más hermosa.
{f} tenía tres años más que su hermana {f2}.
> Según el testamento, la casa era para la mayor, y por eso fue para {f}
> Las joyas eran para la menor, y por eso se las dieron a {f2}

[tree]
Delante de la casa había {tree.un} que plantó el abuelo de {n}.
En la infancia {n} y {n2} habían grabado sus nombres en {tree.el} de la entrada.
> Después de la tormenta no quedaba nada {tree.del}
> En verano todos tomaban el café a la sombra {tree.del}

[vehicle]
«No vendré en {v2}», dijo {n}, «vendré en {v}».
{n} iba a llegar en {v}, y {n2} corrió a recibirl{n.o}.
> {n2} pasó dos horas de pie, con mucho frío, esperando {v.el}
> Por fin se oyó un ruido a lo lejos, y apareció {v.el}

[drink]
{n} no bebía nunca {dr2}, pero no podía vivir sin {dr}.
«¿Quieres {dr} o {dr2}?», preguntó {n2}. «Quiero {dr}, como siempre», dijo {n}.
> Sin preguntar más, {n2} fue a la cocina y trajo {dr}
> Así que en la mesa, delante de {n}, había pronto un gran vaso de {dr}

[fear]
De niñ{n.o}, {n} tenía miedo de una sola cosa: {fear.el}.
{n} no temía a los hombres ni a los fantasmas, pero sí {fear.al}.
> {n2} {n.lo} tomó de la mano para que no pensara en {fear.el}
> Y ahora {n} estaba en la cama, con los ojos abiertos, y pensaba en {fear.el}

[longing]
Toda su vida {n} soñó con {sight.el} que había visto en un libro de la abuela.
«Cuando sea mayor», decía siempre {n}, «veré {sight.el}».
> {w.W} {n2} abrió la cortina, y allí delante estaba {sight.el}
> {n} murió en el mismo pueblo sin haber visto nunca {sight.el}

[clothing]
{n} había olvidado {cl.un} en el banco, junto al lago.
«¿Dónde está mi {cl}?», preguntó {n}, y miró debajo de todas las sillas.
> Dos días después un muchacho llamó a la puerta y entregó {cl.el}
> {n2} se puso roj{n2.o}, porque llevaba debajo del brazo {cl.el}

[work implied]
Todos los días, sin faltar uno solo, {m} {y.s}.
Desde hacía más de treinta años {m} {y.s}.
> Nadie lo llamaba por su nombre, para todo el pueblo era el {y}
> «Es un hombre honrado», dijo {f}, y se casó con el {y}

[place implied]
{z.s}. {n} esperaba sin moverse.
{z.s}. En medio de todo aquello estaba {n}.
> Cuando oscureció, {n} se subió el cuello del abrigo y salió {z.del}
> {n2} llegaba tarde y cruzó la plaza corriendo hacia {z.el}

[animal implied]
{q.s}, y {n} no podía dormir.
{q.s}. «¿Lo oyes?», susurró {n}.
> {n2} tomó el farol, fue a mirar y encontró {q.un}
> «No tengas miedo», dijo {n2}, «no es más que {q.un}

[wound]
{n} se había caído de la escalera y se había herido en {body.el}.
Desde la guerra, cada vez que cambiaba el tiempo, a {n} le dolía {body.el}.
> Vino el médico, movió la cabeza y miró durante mucho tiempo {body.el}
> {n2} calentó un poco de aceite y le frotó con cuidado {body.el}

[choice of two]
En la mesa había {o.un} y {o2.un}, y {n} solo podía llevarse una cosa.
«¿{o.El} o {o2.el}?», preguntó {n2}. «Tienes que elegir».
> {n} dejó {o2.el} donde estaba y tomó deprisa {o.el}
> {n} pensó un momento, apartó {o.el} y tomó con cuidado {o2.el}
""")

DATA = LanguageData(lexicon=_LEXICON, moods=_MOODS, devices=_DEVICES)
